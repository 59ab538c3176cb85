"""HTML pages from the Jinja templates of the package."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nucseg_pipeline.formatting import bounds, number, p_value, signed, size_words, spread_cells


def render(template: str, **values: Any) -> str:
    """Fill in a template of the package."""
    return _environment().get_template(template).render(values)


def _environment() -> Environment:
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
    """The style sheets or scripts of these names, concatenated verbatim."""
    assert environment.loader is not None  # noqa: S101 - set where the environment is made
    return Markup("\n".join(environment.loader.get_source(environment, name)[0] for name in names))  # noqa: S704


def _digest(script: str) -> str:
    """Digest of a script for the Content-Security-Policy, which lets the browser run only this script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
