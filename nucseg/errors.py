"""Errors that the user can act on: each says what was found, what was expected, and what to do."""

import difflib
from collections.abc import Iterable


class NucsegError(Exception):
    """Base class of all errors that the user can act on."""


class ConfigError(NucsegError):
    """An option or a recipe asks for something impossible."""


class DataError(NucsegError):
    """A data set on disk does not have the expected layout or content."""


class EncoderError(NucsegError):
    """An encoder cannot be opened, or its output cannot be trusted."""


class OutOfMemory(NucsegError):
    """The memory of the device or the machine is not enough for even one image."""


class TrainingError(NucsegError):
    """Training cannot continue; finished epochs are kept."""


def known(name: str, valid: Iterable[str]) -> str:
    """Suggest the valid name that is closest to `name`, or list all of them in their order."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
