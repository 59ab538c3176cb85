"""Which images a run trains on, chooses its checkpoint by, and is tested on.

The test part depends on the protocol and the fold, and on the seed only where the protocol says so. From the rest, a
stratified share is held out for validation; where a protocol keeps groups together, validation does too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nucseg.data.holdout import held_out, held_out_groups
from nucseg.data.nuinsseg import N_RELEASED
from nucseg.errors import ConfigError

N_FOLDS = 5
HELD_OUT = 0.15
"""Share of the training part held out for validation; in the protocol `paper`, share of all images in either part."""

_OFFICIAL_SEED = 19
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """What a split goes by."""

    id: str
    group: str
    stratum: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """Ids of the three parts, each in the order of the rows; together they are all rows, each once."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    protocol: str
    """The protocol that was applied, which is another than asked for where the notes say so."""
    notes: tuple[str, ...] = ()
    """What a reader of scores has to know."""


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """What a protocol decides; row numbers."""

    test: list[int]
    protocol: str
    validation_share: float = HELD_OUT
    """Of the rows that are not tested."""
    whole_groups: bool = False
    notes: tuple[str, ...] = ()


def protocol_names() -> tuple[str, ...]:
    """Names that `split` knows."""
    return tuple(_PROTOCOLS)


def split(rows: Sequence[SplitRow], *, dataset: str, protocol: str, fold: int, seed: int) -> Split:
    """Divide rows, which stand in the data set's own order, into three parts.

    official  as the data set's authors do; where they do not say, as grouped
    grouped   groups in 5 folds of like size, or in as many as there are groups; the fold-th is the test part
    kfold     images in 5 folds at random; the fold-th is the test part
    paper     70 % training, 15 % validation, 15 % test, at random in each stratum; the only fold is 0

    In all but `paper`, 15 % of what is not tested is held out for validation: evenly over the strata, of which
    those too small to give an image are pooled; in `grouped`, as whole groups. `seed` (0 to 2**32 - 1) draws whatever
    is random, except the folds of `official` and `grouped`, which are fixed. Raises ConfigError for an unknown
    protocol, a fold that is not there, and too few images or groups.
    """
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"No protocol is called {protocol!r}; known are {', '.join(protocol_names())}.")
    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f"The seed of a split lies between 0 and {_MAX_SEED}, got {seed}.")
    tested = _PROTOCOLS[protocol](rows, dataset, fold, seed)
    rest = sorted(set(range(len(rows))) - set(tested.test))
    if len(rest) < 2:
        raise ConfigError(
            f"Fold {fold} of the protocol {protocol} tests on {len(tested.test)} of {len(rows)} images and leaves "
            f"{len(rest)}, but training and validation need at least one each: at least 3 images in all, and 2 of them "
            "outside the largest group where groups are kept together."
        )
    held, note = _validation(rows, rest, tested, seed)
    parts = (sorted(set(rest) - set(held)), sorted(held), sorted(tested.test))
    train, validation, test = (tuple(rows[number].id for number in part) for part in parts)
    notes = (*tested.notes, *note, *_leak_note(rows, rest, tested.test))
    return Split(train=train, validation=validation, test=test, protocol=tested.protocol, notes=notes)


def _official(rows: Sequence[SplitRow], dataset: str, fold: int, seed: int) -> _Tested:
    if dataset != "nuinsseg":
        note = f"The data set {dataset} has no official split: grouped k-fold was applied."
        grouped = _grouped(rows, dataset, fold, seed)
        return replace(grouped, notes=(note, *grouped.notes))
    note = (
        f"NuInsSeg: official rule on {len(rows)} of {N_RELEASED} images, in the order organ folder, then file name "
        "(the order of the authors is not published)."
    )
    return _Tested(test=_shuffled_fold(rows, "official", fold, _OFFICIAL_SEED), protocol="official", notes=(note,))


def _kfold(rows: Sequence[SplitRow], dataset: str, fold: int, seed: int) -> _Tested:
    return _Tested(test=_shuffled_fold(rows, "kfold", fold, seed), protocol="kfold")


def _grouped(rows: Sequence[SplitRow], dataset: str, fold: int, seed: int) -> _Tested:
    from sklearn.model_selection import GroupKFold  # slow to import, as everywhere in this module

    groups = [row.group for row in rows]
    n_groups = len(set(groups))
    if n_groups < 2:
        raise ConfigError(
            f"A grouped split needs at least two groups (patients, slides, source images), {dataset} has {n_groups}: "
            "tested on the group it was trained on, a model shows nothing about new ones. Add images of another group, "
            "or ask for the protocol kfold and keep this in mind."
        )
    n_folds = min(N_FOLDS, n_groups)
    _check_fold("grouped", fold, n_folds)
    folds = list(GroupKFold(n_folds).split(groups, groups=groups))
    notes = (f"Only {n_groups} groups, so {n_folds} folds.",) if n_folds < N_FOLDS else ()
    return _Tested(test=folds[fold][1].tolist(), protocol="grouped", whole_groups=True, notes=notes)


def _paper(rows: Sequence[SplitRow], dataset: str, fold: int, seed: int) -> _Tested:
    _check_fold("paper", fold, 1)
    if len(rows) < 3:
        raise ConfigError(f"The protocol paper needs at least 3 images, one for each part; {dataset} has {len(rows)}.")
    test = held_out([row.stratum for row in rows], HELD_OUT, seed)
    return _Tested(test=test, protocol="paper", validation_share=HELD_OUT / (1 - HELD_OUT))


_PROTOCOLS: dict[str, Callable[[Sequence[SplitRow], str, int, int], _Tested]] = {
    "official": _official,
    "grouped": _grouped,
    "kfold": _kfold,
    "paper": _paper,
}


def _shuffled_fold(rows: Sequence[SplitRow], protocol: str, fold: int, seed: int) -> list[int]:
    from sklearn.model_selection import KFold

    _check_fold(protocol, fold, N_FOLDS)
    if len(rows) < N_FOLDS:
        raise ConfigError(
            f"The protocol {protocol} needs at least {N_FOLDS} images, one a fold; there are {len(rows)}."
        )
    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(rows))
    numbers: list[int] = folds[fold][1].tolist()
    return numbers


def _check_fold(protocol: str, fold: int, n_folds: int) -> None:
    if not 0 <= fold < n_folds:
        folds = f"the folds 0 to {n_folds - 1}" if n_folds > 1 else "only the fold 0"
        raise ConfigError(f"The protocol {protocol} has {folds} here, got {fold}.")


def _validation(
    rows: Sequence[SplitRow], rest: list[int], tested: _Tested, seed: int
) -> tuple[list[int], tuple[str, ...]]:
    groups, strata = [rows[number].group for number in rest], [rows[number].stratum for number in rest]
    notes: tuple[str, ...] = ()
    if tested.whole_groups and len(set(groups)) > 1:
        held = held_out_groups(groups, tested.validation_share, seed)
    else:
        held = held_out(strata, tested.validation_share, seed)
        if tested.whole_groups:
            notes = ("Only one group is left to train on, so validation holds images of that same group.",)
    return [rest[position] for position in held], notes


def _leak_note(rows: Sequence[SplitRow], rest: list[int], test: list[int]) -> tuple[str, ...]:
    seen = {rows[number].group for number in rest}
    n_leaking = sum(rows[number].group in seen for number in test)
    if not n_leaking:
        return ()
    return (
        f"{n_leaking} of {len(test)} test images come from a group (patient, slide or source image) that training or "
        "validation also sees: the scores promise too much for new slides. The protocol grouped keeps groups apart.",
    )
