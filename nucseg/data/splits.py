"""Which images a run trains on, chooses its checkpoint by, and is tested on.

The test part depends on the protocol and the fold, and on the seed only where the protocol says so. From the rest, a
stratified share is held out for validation; where a protocol keeps groups together, validation does too.
"""

from dataclasses import dataclass

from nucseg.data.holdout import held_out, held_out_groups
from nucseg.data.official_splits import official_protocol, plain_name
from nucseg.data.split_protocols import GROUPED, KFOLD, PAPER, EmbeddingDataset, Protocol, SplitRow
from nucseg.errors import ConfigError

__all__ = ["Split", "SplitRow", "n_folds", "protocol_names", "protocol_summary", "split"]

_OFFICIAL = "official"
_GENERAL = {protocol.name: protocol for protocol in (GROUPED, KFOLD, PAPER)}
_ONE_SLIDE_AN_IMAGE = ("cryonuseg",)
"""Data sets whose images are groups of their own because each comes from another slide."""

_MAX_SEED = 2**32 - 1


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


def protocol_names() -> tuple[str, ...]:
    """Names that `split` knows."""
    return (_OFFICIAL, *_GENERAL)


def protocol_summary(dataset: str, protocol: str) -> str:
    """What a protocol does with a data set, in one line. Raises ConfigError for an unknown protocol."""
    chosen, notes = _chosen(dataset, protocol)
    return f"none; instead {chosen.summary}" if notes else chosen.summary


def n_folds(rows: EmbeddingDataset, *, dataset: str, protocol: str) -> int:
    """How many folds a protocol divides these rows into.

    Raises ConfigError for an unknown protocol, and where there are too few images, groups, organs or source images.
    """
    chosen, _ = _chosen(dataset, protocol)
    return chosen.n_folds(rows, dataset)


def split(rows: EmbeddingDataset, *, dataset: str, protocol: str, fold: int, seed: int) -> Split:
    """Divide rows, which stand in the data set's own order, into three parts.

    official  as the data set's authors do (`official_protocol`); where they do not say, as grouped
    grouped   groups in 5 folds of like size, or in as many as there are groups; the fold-th is the test part
    kfold     images in 5 folds at random; the fold-th is the test part
    paper     70 % training, 15 % validation, 15 % test, at random in each stratum; the only fold is 0

    In all but `paper`, 15 % of what is not tested is held out for validation: evenly over the strata, of which
    those too small to give an image are pooled; in whole groups in `grouped`, and where the authors keep groups
    together. `seed` (0 to 2**32 - 1) draws whatever is random, except the folds of `official` and `grouped`, which are
    fixed. Raises ConfigError for an unknown protocol, a fold that is not there, and too few images or groups.
    """
    chosen, notes = _chosen(dataset, protocol)
    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f"The seed of a split lies between 0 and {_MAX_SEED}, got {seed}.")
    _check_fold(protocol, fold, chosen.n_folds(rows, dataset))
    test = chosen.tested(rows, fold, seed)
    rest = sorted(set(range(len(rows))) - set(test))
    if len(rest) < 2:
        raise ConfigError(
            f"Fold {fold} of the protocol {protocol} tests on {len(test)} of {len(rows)} images and leaves "
            f"{len(rest)}, but training and validation need at least one each: at least 3 images in all, and 2 of them "
            "outside the largest group or organ where those are kept together."
        )
    held, held_notes = _validation(rows, rest, chosen, seed)
    parts = (sorted(set(rest) - set(held)), sorted(held), sorted(test))
    train, validation, tested = (tuple(rows[number].id for number in part) for part in parts)
    notes += chosen.notes(rows, fold) + held_notes + _leak_notes(rows, rest, test) + _unknown_notes(rows, dataset)
    return Split(train=train, validation=validation, test=tested, protocol=chosen.name, notes=notes)


def _chosen(dataset: str, protocol: str) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol of that name for that data set, and a note if it is not what was asked for."""
    if protocol in _GENERAL:
        return _GENERAL[protocol], ()
    if protocol != _OFFICIAL:
        raise ConfigError(f"No protocol is called {protocol!r}; known are {', '.join(protocol_names())}.")
    official = official_protocol(dataset)
    if official is not None:
        return official, ()
    return GROUPED, (f"The data set {dataset} has no official split: grouped k-fold was applied.",)


def _check_fold(protocol: str, fold: int, count: int) -> None:
    if not 0 <= fold < count:
        folds = f"the folds 0 to {count - 1}" if count > 1 else "only the fold 0"
        raise ConfigError(f"The protocol {protocol} has {folds} here, got {fold}.")


def _validation(
    rows: EmbeddingDataset, rest: list[int], protocol: Protocol, seed: int
) -> tuple[list[int], tuple[str, ...]]:
    groups, strata = [rows[number].group for number in rest], [rows[number].stratum for number in rest]
    notes: tuple[str, ...] = ()
    if protocol.whole_groups and len(set(groups)) > 1:
        held = held_out_groups(groups, strata, protocol.validation_share, seed)
    else:
        held = held_out(strata, protocol.validation_share, seed)
        if protocol.whole_groups:
            notes = ("Only one group is left to train on, so validation holds images of that same group.",)
    return [rest[position] for position in held], notes


def _leak_notes(rows: EmbeddingDataset, rest: list[int], test: list[int]) -> tuple[str, ...]:
    seen = {rows[number].group for number in rest}
    n_leaking = sum(rows[number].group in seen for number in test)
    if not n_leaking:
        return ()
    return (
        f"{n_leaking} of {len(test)} test images come from a group (patient, slide or source image) that training or "
        "validation also sees: the scores promise too much for new slides. The protocol grouped keeps groups apart.",
    )


def _unknown_notes(rows: EmbeddingDataset, dataset: str) -> tuple[str, ...]:
    if plain_name(dataset) in _ONE_SLIDE_AN_IMAGE or any(row.group != row.id for row in rows):
        return ()
    return (
        f"Nobody knows which images of {dataset} share a patient or a slide: every image counts as a group of its "
        "own. Images of one patient may lie in training and in test, so a leak cannot be ruled out.",
    )
