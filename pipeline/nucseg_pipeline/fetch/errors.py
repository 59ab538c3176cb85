"""Errors of `nucseg fetch`."""

from nucseg.errors import NucsegError


class FetchError(NucsegError):
    """Data or weights could not be fetched; nothing incomplete is left where the stages look for it."""


class RefusedError(FetchError):
    """A file is not what was asked for, or is unsafe to unpack. Another attempt with the same file cannot succeed."""
