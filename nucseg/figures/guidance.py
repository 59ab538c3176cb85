"""Where guidance helped and where it harmed: two predictions for one image compared with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucseg.metrics.instances import InstanceMap, matched, overlaps
from nucseg.metrics.overlap import Mask

# distinct for any kind of colour vision (Okabe and Ito 2008), and from the fills of `nuclei`
HELPED = "#009E73"
"""Right with guidance and wrong without it."""
HARMED = "#D55E00"
"""Wrong with guidance and right without it."""


@dataclass(frozen=True, eq=False)
class GuidanceEffect:
    """Differences between a prediction with guidance and one without, judged by the truth; all (H, W)."""

    helped: Mask
    """Pixels that are right only with guidance."""
    harmed: Mask
    """Pixels that are right only without guidance."""
    gained: InstanceMap
    """True nuclei found (IoU > 0.5) only with guidance; 0 elsewhere."""
    lost: InstanceMap
    """True nuclei found only without guidance; 0 elsewhere."""


def guidance_effect(truth: InstanceMap, guided: InstanceMap, unguided: InstanceMap, ignore: Mask) -> GuidanceEffect:
    """Compare two instance maps with the truth, all (H, W), by pixel and by nucleus, except in `ignore`.

    Raises:
        DataError: the maps differ in shape.
    """
    found_guided, found_unguided = (matched(overlaps(truth, found, ignore)) for found in (guided, unguided))
    counted = np.where(ignore, 0, truth)
    labels = np.unique(counted[counted > 0])
    right_guided, right_unguided = (((found > 0) == (truth > 0)) & ~ignore for found in (guided, unguided))
    return GuidanceEffect(
        helped=right_guided & ~right_unguided,
        harmed=right_unguided & ~right_guided,
        gained=np.where(np.isin(counted, labels[found_guided & ~found_unguided]), counted, 0).astype(np.int32),
        lost=np.where(np.isin(counted, labels[found_unguided & ~found_guided]), counted, 0).astype(np.int32),
    )
