"""How the masks of an image follow a view that crops it or covers a part of it.

A store keeps masks of the unchanged images only. What a view does to them is drawn again from its description and the
id, as when its image was made, so that nothing more need be stored.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucseg.data.prepare import centres, content_size
from nucseg.views.crop import CROP, Crop, Square
from nucseg.views.glass import GLASS, Glass, GlassCover
from nucseg.views.orientation import turned


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of a prepared sample, see `nucseg.data.Prepared`."""

    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    size: tuple[int, int]
    """Native (H, W) of the image."""


@dataclass(frozen=True)
class MaskFollower:
    """What a view does to masks."""

    seed: str
    variant: str
    crop: Crop | None
    glass: Glass | None

    @classmethod
    def of(cls, described: Mapping[str, str]) -> "MaskFollower | None":
        """Read `View.described`; None for a view that leaves masks as they are, or only turns them.

        Raises ConfigError where this version cannot draw what is described.
        """
        crop, glass = described.get(CROP), described.get(GLASS)
        if crop is None and glass is None:
            return None
        return cls(
            described["seed"],
            described["variant"],
            None if crop is None else Crop.parse(crop),
            None if glass is None else Glass.parse(glass),
        )

    def apply(self, masks: Masks, sample_id: str) -> Masks:
        """The masks of a sample in this view, on the same grid.

        A crop takes the nearest prepared pixels: a nucleus keeps the resolution of the whole image's grid. Nuclei lose
        what lies under glass, and the soft border of the glass is ignored.
        """
        draws = draws_for(self.seed, self.variant, sample_id)
        if self.crop is not None:
            masks = _cropped(masks, self.crop.draw(draws))
        return masks if self.glass is None else _covered(masks, self.glass.draw(draws))


def draws_for(seed: int | str, variant: int | str, sample_id: str) -> random.Random:
    """The random numbers of one image in one variant; a crop draws first, then glass, then the transforms."""
    # Python guarantees the same random() for a seed in every version; numpy does not
    return random.Random(f"{seed}/{variant}/{sample_id}")  # noqa: S311 - no secret


def _cropped(masks: Masks, square: Square) -> Masks:
    side_px = len(masks.instances)
    top, left, side = square.box(masks.size)
    at = np.ix_(*(
        # floor(centre in native pixels * prepared / native) in integers
        (2 * side_px * start + (2 * np.arange(side_px) + 1) * side) * n // (2 * side_px * n_native)
        for start, n, n_native in zip((top, left), content_size(masks.size, side_px), masks.size, strict=True)
    ))  # fmt: skip
    return Masks(turned(masks.instances[at], square.element), turned(masks.ignore[at], square.element), (side, side))


def _covered(masks: Masks, cover: GlassCover) -> Masks:
    h, w = content_size(masks.size, len(masks.instances))
    opacity = cover.opacity(masks.size, centres(masks.size[0], h), centres(masks.size[1], w))
    instances, ignore = masks.instances.copy(), masks.ignore.copy()
    instances[:h, :w][opacity >= 0.5] = 0
    ignore[:h, :w] |= (opacity > 0) & (opacity < 1)
    return Masks(instances, ignore, masks.size)
