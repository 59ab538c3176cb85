"""Paths as people write them."""

from pathlib import Path

from nucseg.errors import ConfigError


def home_expanded(path: Path | str) -> Path:
    """A path with the home folder in place of a leading `~` or `~NAME`. Raises ConfigError for a NAME of no user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as cause:
        raise ConfigError(
            f"{path} begins with the home folder of a user who is not there ({cause}) Write ./{path} if a "
            "file is really called that, or name it in full."
        ) from None
