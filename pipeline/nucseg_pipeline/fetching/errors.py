"""Why something could not be fetched."""

from nucseg.errors import NucsegError


class FetchError(NucsegError):
    """Data or weights could not be fetched; nothing half done lies where the stages look for it.

    The message says what was found, what was expected, and the way out.
    """


class RefusedError(FetchError):
    """What came is not what was asked for, or may do harm; it is of no use for another attempt."""
