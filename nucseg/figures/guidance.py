"""Where guidance helped and where it harmed: two predictions of one image against its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucseg.figures.nuclei import InstanceMap, Mask
from nucseg.metrics.instances import matched, overlaps

# Told apart with any kind of colour vision (Okabe and Ito 2008), and from what `nuclei` fills
HELPED = "#009E73"
"""Right with guidance and wrong without it."""
HARMED = "#D55E00"
"""Wrong with guidance and right without it."""


@dataclass(frozen=True, eq=False)
class GuidanceEffect:
    """What differs between a prediction with guidance and one without, judged by the truth; all (H, W)."""

    helped: Mask
    """Pixels that are right with guidance alone."""
    harmed: Mask
    """Pixels that are right without guidance alone."""
    gained: InstanceMap
    """True nuclei that are found (IoU > 0.5) with guidance alone; 0 elsewhere."""
    lost: InstanceMap
    """True nuclei that are found without guidance alone; 0 elsewhere."""


def guidance_effect(truth: InstanceMap, guided: InstanceMap, unguided: InstanceMap, ignore: Mask) -> GuidanceEffect:
    """Judge two instance maps by the truth, all (H, W), pixel by pixel and nucleus by nucleus; `ignore` counts in none.

    Raises:
        DataError: the maps differ in shape.
    """
    found = [matched(overlaps(truth, prediction, ignore)) for prediction in (guided, unguided)]
    counted = np.where(ignore, 0, truth)
    labels = np.unique(counted[counted > 0])
    right = [((prediction > 0) == (truth > 0)) & ~ignore for prediction in (guided, unguided)]
    return GuidanceEffect(
        helped=right[0] & ~right[1],
        harmed=right[1] & ~right[0],
        gained=np.where(np.isin(counted, labels[found[0] & ~found[1]]), counted, 0).astype(np.int32),
        lost=np.where(np.isin(counted, labels[found[1] & ~found[0]]), counted, 0).astype(np.int32),
    )
