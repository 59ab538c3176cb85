"""Hold out a share of images, evenly over strata or in whole groups."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def held_out(strata: Sequence[str], share: float, seed: int) -> list[int]:
    """Indices of about `share` of the images (at least 1, rounded), drawn from each stratum in proportion.

    Strata too small for one image are pooled. `strata` is the stratum of each image, of at least two.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    n_held = max(1, int(share * len(strata) + 0.5))
    pooled = _pooled(strata, math.ceil(1 / share))
    _, held = train_test_split(range(len(strata)), test_size=n_held, random_state=seed, stratify=pooled)
    return sorted(held)


def held_out_groups(groups: Sequence[str], strata: Sequence[str], share: float, seed: int) -> list[int]:
    """Indices of whole groups, drawn at random from each stratum until they contain `share` of its images.

    A group that would exceed one half of the stratum is skipped. Strata with too few groups for one in proportion are
    pooled. `groups` and `strata` are those of each image; there are at least two groups, so at least one is held out
    and one left.
    """
    size, stratum_of = Counter(groups), dict(zip(groups, strata, strict=True))
    names = sorted(size)
    pooled = _pooled([stratum_of[name] for name in names], math.ceil(1 / share))
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for stratum in sorted(set(pooled)):
        members = [name for name, pool in zip(names, pooled, strict=True) if pool == stratum]
        n_images, n_held = sum(size[name] for name in members), 0
        for index in random.permutation(len(members)):
            group = members[index]
            if n_held < share * n_images and n_held + size[group] <= n_images / 2:
                chosen.add(group)
                n_held += size[group]
    return [index for index, group in enumerate(groups) if group in chosen]


def _pooled(strata: Sequence[str], min_size: int) -> list[str]:
    """Merge strata smaller than `min_size`; if that is still too small, merge it with the smallest of the others."""
    count = Counter(strata)
    small = {stratum for stratum in count if count[stratum] < min_size}
    large = sorted(set(count) - small, key=lambda stratum: (count[stratum], stratum))
    joins_other = large and sum(count[stratum] for stratum in small) < min_size
    pool = large[0] if joins_other else min(small, default="")
    return [pool if stratum in small else stratum for stratum in strata]
