"""Split protocols: which images are tested in each fold. This module has those for any data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nucseg.data.holdout import held_out
from nucseg.errors import ConfigError

N_FOLDS = 5
HELD_OUT = 0.15
"""Share of the training part held out for validation; in the protocol `paper`, share of all images in each part."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """The properties of an image that splits depend on."""

    id: str
    group: str
    """Patient, slide or source image; the id itself if it is unknown which images belong together."""
    stratum: str
    """Organ or cohort."""


Rows = Sequence[SplitRow]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A rule that divides rows into folds, each of which is the test part in turn."""

    name: str
    summary: str
    """One line for users."""
    n_folds: Callable[[Rows, str], int]
    """(rows, name of the data set) -> number of folds; raises ConfigError if the data set cannot be divided."""
    tested: Callable[[Rows, int, int], list[int]]
    """(rows, fold, seed) -> indices of the test rows; the fold is valid."""
    notes: Callable[[Rows, int], tuple[str, ...]] = lambda rows, fold: ()
    """(rows, fold) -> remarks for readers of scores."""
    validation_share: float = HELD_OUT
    """Share of the rows that are not tested."""
    whole_groups: bool = False
    """Whether validation consists of whole groups."""


def kfold_folds(rows: Rows, dataset: str) -> int:
    """Number of random folds. Raises ConfigError if there are fewer images than folds."""
    if len(rows) < N_FOLDS:
        raise ConfigError(
            f"{N_FOLDS} folds of images need at least {N_FOLDS} images, one per fold; {dataset} has {len(rows)}. "
            "Add images, or use the protocol paper, which needs 3."
        )
    return N_FOLDS


def kfold_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    """Random images; each is tested in one fold."""
    from sklearn.model_selection import KFold  # slow to import, as everywhere in this module

    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(rows))
    tested: list[int] = folds[fold][1].tolist()
    return tested


def _n_groups(rows: Rows) -> int:
    return len({row.group for row in rows})


def _grouped_folds(rows: Rows, dataset: str) -> int:
    n_groups = _n_groups(rows)
    if n_groups < 2:
        raise ConfigError(
            f"A grouped split needs at least two groups (patients, slides, source images), but {dataset} has "
            f"{n_groups}. Scores for the group that a model was trained on say nothing about new groups. Add images of "
            "another group, or use the protocol kfold and keep this in mind."
        )
    return min(N_FOLDS, n_groups)


def _grouped_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    from sklearn.model_selection import GroupKFold

    groups = [row.group for row in rows]
    folds = list(GroupKFold(min(N_FOLDS, _n_groups(rows))).split(groups, groups=groups))
    tested: list[int] = folds[fold][1].tolist()
    return tested


def _grouped_notes(rows: Rows, fold: int) -> tuple[str, ...]:
    n_groups = _n_groups(rows)
    return (f"Only {n_groups} groups, so {n_groups} folds.",) if n_groups < N_FOLDS else ()


def _paper_folds(rows: Rows, dataset: str) -> int:
    if len(rows) < 3:
        raise ConfigError(
            f"The protocol paper needs at least 3 images, one for each part; {dataset} has {len(rows)}. Add images."
        )
    return 1


def _paper_tested(rows: Rows, fold: int, seed: int) -> list[int]:
    return held_out([row.stratum for row in rows], HELD_OUT, seed)


GROUPED = Protocol(
    name="grouped",
    summary=f"groups (patients, slides, source images) in {N_FOLDS} folds of similar size",
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
