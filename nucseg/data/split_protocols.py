"""Protocols: which images are tested, fold by fold. Here those that any data set can be divided by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nucseg.data.holdout import held_out
from nucseg.errors import ConfigError

N_FOLDS = 5
HELD_OUT = 0.15
"""Share of the training part held out for validation; in the protocol `paper`, share of all images in either part."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """What a split goes by."""

    id: str
    group: str
    """Patient, slide or source image; the id itself where nobody knows which images belong together."""
    stratum: str
    """Organ or cohort."""


EmbeddingDataset = Sequence[SplitRow]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How rows are divided into folds, each of which is the test part in turn."""

    name: str
    summary: str
    """For people, in one line."""
    n_folds: Callable[[EmbeddingDataset, str], int]
    """Rows, name of the data set -> how many folds there are; ConfigError with the reason if it cannot be divided."""
    tested: Callable[[EmbeddingDataset, int, int], list[int]]
    """Rows, fold, seed -> numbers of the rows that are tested. The fold is one that there is."""
    notes: Callable[[EmbeddingDataset, int], tuple[str, ...]] = lambda rows, fold: ()
    """Rows, fold -> what a reader of scores has to know."""
    validation_share: float = HELD_OUT
    """Of the rows that are not tested."""
    whole_groups: bool = False
    """Whether validation is made of whole groups."""


def kfold_folds(rows: EmbeddingDataset, dataset: str) -> int:
    """The number of folds at random. Raises ConfigError for fewer images than folds."""
    if len(rows) < N_FOLDS:
        raise ConfigError(
            f"{N_FOLDS} folds of images need at least {N_FOLDS} images, one a fold; {dataset} has {len(rows)}. "
            "Add images, or ask for the protocol paper, which needs 3."
        )
    return N_FOLDS


def kfold_tested(rows: EmbeddingDataset, fold: int, seed: int) -> list[int]:
    """Images at random, each tested in one fold."""
    from sklearn.model_selection import KFold  # slow to import, as everywhere in this module

    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(rows))
    numbers: list[int] = folds[fold][1].tolist()
    return numbers


def _n_groups(rows: EmbeddingDataset) -> int:
    return len({row.group for row in rows})


def _grouped_folds(rows: EmbeddingDataset, dataset: str) -> int:
    n_groups = _n_groups(rows)
    if n_groups < 2:
        raise ConfigError(
            f"A grouped split needs at least two groups (patients, slides, source images), {dataset} has {n_groups}: "
            "tested on the group it was trained on, a model shows nothing about new ones. Add images of another group, "
            "or ask for the protocol kfold and keep this in mind."
        )
    return min(N_FOLDS, n_groups)


def _grouped_tested(rows: EmbeddingDataset, fold: int, seed: int) -> list[int]:
    from sklearn.model_selection import GroupKFold

    groups = [row.group for row in rows]
    folds = list(GroupKFold(min(N_FOLDS, _n_groups(rows))).split(groups, groups=groups))
    numbers: list[int] = folds[fold][1].tolist()
    return numbers


def _grouped_notes(rows: EmbeddingDataset, fold: int) -> tuple[str, ...]:
    n_groups = _n_groups(rows)
    return (f"Only {n_groups} groups, so {n_groups} folds.",) if n_groups < N_FOLDS else ()


def _paper_folds(rows: EmbeddingDataset, dataset: str) -> int:
    if len(rows) < 3:
        raise ConfigError(
            f"The protocol paper needs at least 3 images, one for each part; {dataset} has {len(rows)}. Add images."
        )
    return 1


def _paper_tested(rows: EmbeddingDataset, fold: int, seed: int) -> list[int]:
    return held_out([row.stratum for row in rows], HELD_OUT, seed)


GROUPED = Protocol(
    name="grouped",
    summary=f"groups (patients, slides, source images) in {N_FOLDS} folds of like size",
    n_folds=_grouped_folds,
    tested=_grouped_tested,
    notes=_grouped_notes,
    whole_groups=True,
)
KFOLD = Protocol(name="kfold", summary=f"images in {N_FOLDS} folds at random", n_folds=kfold_folds, tested=kfold_tested)
PAPER = Protocol(
    name="paper",
    summary="70 % training, 15 % validation, 15 % test, at random in each stratum",
    n_folds=_paper_folds,
    tested=_paper_tested,
    validation_share=HELD_OUT / (1 - HELD_OUT),
)
