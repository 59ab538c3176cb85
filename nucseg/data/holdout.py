"""Holding out a share of images: evenly over strata, or as whole groups."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def held_out(strata: Sequence[str], share: float, seed: int) -> list[int]:
    """Positions of about `share` of the images (at least 1, rounded), drawn from each stratum in proportion.

    Strata too small to give one image are pooled. `strata` names the stratum of each image, at least two of them.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    n_held = max(1, int(share * len(strata) + 0.5))
    pooled = _pooled(strata, math.ceil(1 / share))
    _, held = train_test_split(range(len(strata)), test_size=n_held, random_state=seed, stratify=pooled)
    return sorted(held)


def held_out_groups(groups: Sequence[str], share: float, seed: int) -> list[int]:
    """Positions of whole groups, at random until they make `share` of the images, none that brings them over one half.

    `groups` names the group of each image, at least two different ones; so at least one group is held out and one left.
    """
    size = Counter(groups)
    names = sorted(size)
    chosen: set[str] = set()
    n_held = 0
    for index in np.random.default_rng(seed).permutation(len(names)):
        group = names[index]
        if n_held < share * len(groups) and n_held + size[group] <= len(groups) / 2:
            chosen.add(group)
            n_held += size[group]
    return [position for position, group in enumerate(groups) if group in chosen]


def _pooled(strata: Sequence[str], least: int) -> list[str]:
    """Strata of fewer than `least` images become one; if it is still too small, it joins the smallest of the others."""
    count = Counter(strata)
    small = {stratum for stratum in count if count[stratum] < least}
    large = sorted(set(count) - small, key=lambda stratum: (count[stratum], stratum))
    joins_other = large and sum(count[stratum] for stratum in small) < least
    pool = large[0] if joins_other else min(small, default="")
    return [pool if stratum in small else stratum for stratum in strata]
