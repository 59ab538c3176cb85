"""The Jinja environment that every HTML page is rendered with."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nucseg_pipeline.formatting import bounds, number, p_value, signed, size_words, spread_cells


def environment() -> Environment:
    """Templates of the package with the filters that write numbers."""
    environment = Environment(
        loader=PackageLoader("nucseg_pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "number": number,
        "signed": signed,
        "bounds": bounds,
        "bounds_signed": partial(bounds, write=signed),
        "p_value": p_value,
        "size_words": size_words,
        "spread_cells": spread_cells,
        "sources": partial(_sources, environment),
        "digest": _digest,
        "shell": shlex.join,
    }
    return environment


def _sources(environment: Environment, names: Sequence[str]) -> Markup:
    """The style sheets or scripts of these names, one after the other, as they are."""
    assert environment.loader is not None  # noqa: S101 - set where the environment is made
    return Markup("\n".join(environment.loader.get_source(environment, name)[0] for name in names))  # noqa: S704


def _digest(script: str) -> str:
    """What a Content-Security-Policy calls a script by: only a script of this very text is run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
