"""Official split protocols of data sets that have one."""

import math
from collections import Counter

import numpy as np

from nucseg.data.conic import RELEASE as CONIC
from nucseg.data.cryonuseg import RELEASE as CRYONUSEG
from nucseg.data.nuinsseg import RELEASE as NUINSSEG
from nucseg.data.split_protocols import N_FOLDS, Protocol, Rows, kfold_folds, kfold_tested
from nucseg.data.stain import STAINS
from nucseg.errors import ConfigError

_NUINSSEG_SEED = 19
_CRYONUSEG_ORGANS = 10
_CONIC_SEED, _CONIC_SPLITS, _CONIC_TESTED = 5, 10, 0.2


def plain_name(dataset: str) -> str:
    """Name of a data set without its stain normalisation: `nuinsseg` for `nuinsseg@macenko`.

    Other names with an "@", such as `slides@2024`, do not change.
    """
    return dataset if stain_of(dataset) == "none" else dataset.rpartition("@")[0]


def stain_of(dataset: str) -> str:
    """Stain normalisation in the name of a data set: `macenko` for `nuinsseg@macenko`, else `none`."""
    plain, _, last = dataset.rpartition("@")
    return last if plain and last in STAINS else "none"


def is_same_dataset(name: str, other: str) -> bool:
    """Whether two names are of the same data set, with any stain normalisation."""
    return plain_name(name) == plain_name(other)


def official_protocol(dataset: str) -> Protocol | None:
    """The split protocol of the data set's authors, None if they give none; the same for any stain normalisation."""
    return _RULES.get(plain_name(dataset))


# ---- NuInsSeg: random folds of images (Mahbod et al. 2024)


def _nuinsseg_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    return kfold_tested(rows, fold, _NUINSSEG_SEED)


def _nuinsseg_notes(rows: Rows, fold: int) -> tuple[str, ...]:
    return (
        f"NuInsSeg: official rule on {len(rows)} of {NUINSSEG.n_images} images, in the order organ folder, then file "
        "name (the order of the authors is not published).",
    )


# ---- CryoNuSeg: leave one organ out (Mahbod et al. 2021)


def _organs(rows: Rows) -> list[str]:
    return sorted({row.stratum for row in rows})


def _organ_folds(rows: Rows, dataset: str) -> int:
    organs = _organs(rows)
    if len(organs) < 2:
        raise ConfigError(
            f"The official protocol of CryoNuSeg tests on one organ and trains on the others, so at least two organs "
            f"are needed; {dataset} has {len(organs)} ({', '.join(organs) or 'no images'}). Add images of another "
            "organ, or use the protocol grouped."
        )
    return len(organs)


def _organ_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    organ = _organs(rows)[fold]
    return [index for index, row in enumerate(rows) if row.stratum == organ]


def _organ_notes(rows: Rows, fold: int) -> tuple[str, ...]:
    organs = _organs(rows)
    return (
        f"CryoNuSeg: official rule on {len(rows)} of {CRYONUSEG.n_images} images, {len(organs)} of {_CRYONUSEG_ORGANS} "
        f"organs; fold {fold} leaves out {organs[fold]}.",
    )


# ---- CoNIC: random splits of source images, stratified by cohort (generate_split.py of the challenge's baseline)


def _conic_folds(rows: Rows, dataset: str) -> int:
    cohort = {row.group: row.stratum for row in rows}
    if len(cohort) < 2:
        raise ConfigError(
            f"The official protocol of CoNIC keeps the patches of a source image together, so at least two source "
            f"images are needed; {dataset} has {len(cohort)} ({', '.join(cohort) or 'no patches'}). Add patches of "
            f"other source images: the release has {CONIC.n_images} patches."
        )
    _check_cohorts(Counter(cohort.values()), dataset)
    return _CONIC_SPLITS


def _check_cohorts(n_sources: Counter[str], dataset: str) -> None:
    """Refuse what StratifiedShuffleSplit would: each side needs at least one source image of every cohort."""
    lone = sorted(name for name, count in n_sources.items() if count < 2)
    if lone:
        raise ConfigError(
            "The official protocol of CoNIC trains and tests on every cohort, so it needs at least two source images "
            f"of each; {dataset} has only one of {', '.join(lone)}. Add patches of other source images, or use the "
            "protocol grouped (`--split grouped`)."
        )
    n_tested = math.ceil(_CONIC_TESTED * n_sources.total())
    if n_tested < len(n_sources):
        found = ", ".join(f"{count} of {name}" for name, count in sorted(n_sources.items()))
        raise ConfigError(
            f"The official protocol of CoNIC tests on every cohort, but a fifth of the {n_sources.total()} source "
            f"images of {dataset} ({found}) is {n_tested}, too few for {len(n_sources)} cohorts. Add patches until "
            f"there are {5 * (len(n_sources) - 1) + 1} source images, or use the protocol grouped "
            "(`--split grouped`)."
        )


def _conic_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    from sklearn.model_selection import StratifiedShuffleSplit  # slow to import

    cohort = {row.group: row.stratum for row in rows}
    sources = np.unique(list(cohort))
    _, cohorts = np.unique([cohort[source] for source in sources], return_inverse=True)
    splitter = StratifiedShuffleSplit(
        n_splits=_CONIC_SPLITS, train_size=0.8, test_size=_CONIC_TESTED, random_state=_CONIC_SEED
    )
    _, tested = list(splitter.split(sources, cohorts))[fold]
    names = set(sources[tested].tolist())
    return [index for index, row in enumerate(rows) if row.group in names]


def _conic_notes(rows: Rows, fold: int) -> tuple[str, ...]:
    return (
        f"CoNIC: official rule on {len(rows)} of {CONIC.n_images} patches. Its folds are {_CONIC_SPLITS} random "
        "splits. Fold 0 is that of the protocol; the test parts of folds 1 to "
        f"{_CONIC_SPLITS - 1} overlap with it and with each other.",
    )


_RULES = {
    NUINSSEG.name: Protocol(
        name="official",
        summary=f"images in {N_FOLDS} folds at random (KFold, shuffled, random state {_NUINSSEG_SEED})",
        n_folds=kfold_folds,
        tested=_nuinsseg_tested,
        notes=_nuinsseg_notes,
    ),
    CRYONUSEG.name: Protocol(
        name="official",
        summary=f"leave one organ out, {_CRYONUSEG_ORGANS} folds",
        n_folds=_organ_folds,
        tested=_organ_tested,
        notes=_organ_notes,
    ),
    CONIC.name: Protocol(
        name="official",
        summary=f"source images 80 : 20 at random, stratified by cohort (random state {_CONIC_SEED}); fold 0 is the "
        f"official one of {_CONIC_SPLITS}",
        n_folds=_conic_folds,
        tested=_conic_tested,
        notes=_conic_notes,
        whole_groups=True,
    ),
}
