"""What can go wrong in a way that the user can act on: what was found, what was expected, the way out."""


class NucsegError(Exception):
    """The base of every error that the user can act on."""


class ConfigError(NucsegError):
    """An option or a recipe asks for something that cannot be."""


class DataError(NucsegError):
    """A data set on disk is not what its layout says."""


class EncoderError(NucsegError):
    """An encoder cannot be opened, or what it returned cannot be trusted."""
