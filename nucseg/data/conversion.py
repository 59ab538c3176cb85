"""Convert pixels of more than 8 bits to 8 bits, if this was asked for: nucseg never chooses a scale by itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.errors import ConfigError, suggestion

CONVERSIONS = ("none", "full-range")
"""none refuses such images. full-range maps 0 and the largest number of the type to 0 and 255, and floats from 0 to 1;
CMYK becomes RGB without a colour profile."""


class OutOfRangeError(ValueError):
    """Floats are not from 0 to 1."""


def check_conversion(name: str) -> None:
    """Raise ConfigError unless `name` is one of `CONVERSIONS`."""
    if name not in CONVERSIONS:
        near = suggestion(name, CONVERSIONS)
        raise ConfigError(f"convert must be {' or '.join(CONVERSIONS)}, got {name!r}. {near}".rstrip())


def conversion_of(preparation: Mapping[str, str]) -> str:
    """The conversion that a store's `preparation` records."""
    return preparation.get("convert", "none")


def conversion_identity(convert: str) -> dict[str, str]:
    """What a store's `preparation` records: nothing without a conversion, as in stores from before there was one."""
    return {} if convert == "none" else {"convert": convert}


def to_eight_bits(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Scale unsigned integers of some bits, or floats from 0 to 1, to 0 to 255, rounded.

    Raises:
        OutOfRangeError: floats below 0, above 1, or NaN.
    """
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise OutOfRangeError(
                f"its values are from {values.min():g} to {values.max():g}, and the conversion full-range expects 0 to "
                "1; scale them and save it again"
            )
        return np.asarray(np.rint(values.astype(np.float64) * 255), np.uint8)
    if bits > 24:  # more would overflow 32 bits, and 8 are left
        values, bits = values >> (bits - 16), 16
    largest = 2**bits - 1
    return np.asarray((values.astype(np.uint32) * 255 + largest // 2) // largest, np.uint8)
