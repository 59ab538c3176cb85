"""What can go wrong in a way that the user can act on: what was found, what was expected, the way out."""

import difflib
from collections.abc import Iterable


class NucsegError(Exception):
    """The base of every error that the user can act on."""


class ConfigError(NucsegError):
    """An option or a recipe asks for something that cannot be."""


class RunBusy(ConfigError):
    """Another process is training in the run's folder."""

    exit_status = 75
    """Exit status of the command, for a caller that tries again later (EX_TEMPFAIL of sysexits.h)."""


class DataError(NucsegError):
    """A data set on disk is not what its layout says."""


class EncoderError(NucsegError):
    """An encoder cannot be opened, or what it returned cannot be trusted."""


class OutOfMemory(NucsegError):
    """Memory does not suffice for even one image, on the device or in the machine."""


def known(name: str, valid: Iterable[str]) -> str:
    """Say which valid name may have been meant, or which there are, in their order."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


class TrainingError(NucsegError):
    """Training cannot go on; what was finished is kept."""
