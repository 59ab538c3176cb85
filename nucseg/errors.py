"""Errors that the user can act on: each says what was found, what was expected, and what to do."""

import difflib
from collections.abc import Iterable


class NucsegError(Exception):
    """Base class of all errors that the user can act on."""


class ConfigError(NucsegError):
    """An option or a recipe asks for something impossible."""


class RunBusy(ConfigError):
    """Another process is training in the run's folder."""

    exit_status = 75
    """Exit status of the command, for a caller that tries again later (EX_TEMPFAIL of sysexits.h)."""


class DataError(NucsegError):
    """A data set on disk does not have the expected layout or content."""


class EncoderError(NucsegError):
    """An encoder cannot be opened, or its output cannot be trusted."""


class OutOfMemory(NucsegError):
    """The memory of the device or the machine is not enough for even one image."""


class TrainingError(NucsegError):
    """Training cannot continue; finished epochs are kept."""


MAX_LISTED = 16
"""Most names that are listed after a suggestion."""


def suggestion(name: object, valid: Iterable[object]) -> str:
    """`Did you mean 'x'?` for the valid name that is closest to `name`; empty if none is close."""
    near = difflib.get_close_matches(str(name), [*map(str, valid)], n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def known(name: object, valid: Iterable[object]) -> str:
    """Suggest the valid name that is closest to `name`, and list all in their order; of many, only if none is close."""
    names = [*map(str, valid)]
    suggested = suggestion(name, names)
    listed = f"Known: {', '.join(names)}." if not suggested or len(names) <= MAX_LISTED else ""
    return f"{suggested} {listed}".strip()
