"""Split a data set into training, validation and test parts.

The test part depends on the protocol and the fold, and in some protocols on the seed. A stratified share of the rest is
held out for validation; protocols that keep groups together do so for validation, too.
"""

from dataclasses import dataclass

from nucseg.data.holdout import held_out, held_out_groups
from nucseg.data.official_splits import official_protocol, plain_name
from nucseg.data.split_protocols import GROUPED, KFOLD, PAPER, Protocol, Rows, SplitRow
from nucseg.errors import ConfigError, known

__all__ = ["Split", "SplitRow", "n_folds", "protocol_names", "protocol_summary", "split"]

_OFFICIAL = "official"
_GENERAL = {protocol.name: protocol for protocol in (GROUPED, KFOLD, PAPER)}
_ONE_SLIDE_AN_IMAGE = ("cryonuseg",)
"""Data sets in which every image is its own group because it comes from its own slide."""

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Split:
    """Ids of the three parts, in the order of the rows; every row is in exactly one part."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    protocol: str
    """The protocol applied; if it differs from the requested one, the notes say so."""
    notes: tuple[str, ...] = ()
    """Remarks for readers of scores."""


def protocol_names() -> tuple[str, ...]:
    """Names accepted by `split`."""
    return (_OFFICIAL, *_GENERAL)


def protocol_summary(dataset: str, protocol: str) -> str:
    """Describe a protocol for a data set in one line. Raises ConfigError for an unknown protocol."""
    chosen, notes = _chosen(dataset, protocol)
    return f"none; instead {chosen.summary}" if notes else chosen.summary


def n_folds(rows: Rows, *, dataset: str, protocol: str) -> int:
    """Number of folds of a protocol for these rows.

    Raises ConfigError for an unknown protocol, and for too few images, groups, organs or source images.
    """
    chosen, _ = _chosen(dataset, protocol)
    return chosen.n_folds(rows, dataset)


def split(rows: Rows, *, dataset: str, protocol: str, fold: int, seed: int) -> Split:
    """Divide rows, given in the data set's own order, into three parts.

    official  as by the data set's authors (`official_protocol`); if they give no split, as grouped
    grouped   groups in 5 folds of similar size, or fewer if there are fewer groups; fold `fold` is tested
    kfold     images in 5 random folds; fold `fold` is tested
    paper     70 % training, 15 % validation, 15 % test, at random in each stratum; the only fold is 0

    In all but `paper`, 15 % of the images that are not tested are held out for validation: evenly over strata, pooling
    those too small for one image, or in whole groups in `grouped` and if the authors keep groups together. `seed` (0 to
    2**32 - 1) determines all random draws; the folds of `official` and `grouped` are fixed. Raises ConfigError for an
    unknown protocol or fold, and for too few images or groups.
    """
    chosen, notes = _chosen(dataset, protocol)
    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f"The seed of a split must be between 0 and {_MAX_SEED}, got {seed}.")
    _check_fold(protocol, fold, chosen.n_folds(rows, dataset))
    test = chosen.tested(rows, fold, seed)
    rest = sorted(set(range(len(rows))) - set(test))
    if len(rest) < 2:
        raise ConfigError(
            f"Fold {fold} of the protocol {protocol} tests on {len(test)} of {len(rows)} images and leaves "
            f"{len(rest)}, but training and validation need at least one each. Add images: at least 3 in all, and if "
            "groups or organs are kept together, 2 outside the largest."
        )
    held, held_notes = _validation(rows, rest, chosen, seed)
    parts = (sorted(set(rest) - set(held)), sorted(held), sorted(test))
    train, validation, tested = (tuple(rows[index].id for index in part) for part in parts)
    notes += chosen.notes(rows, fold) + held_notes + _leak_notes(rows, rest, test) + _unknown_notes(rows, dataset)
    return Split(train=train, validation=validation, test=tested, protocol=chosen.name, notes=notes)


def _chosen(dataset: str, protocol: str) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol of that name for that data set, and a note if another one replaces it."""
    if protocol in _GENERAL:
        return _GENERAL[protocol], ()
    if protocol != _OFFICIAL:
        raise ConfigError(f"No protocol is called {protocol!r}. {known(protocol, protocol_names())}")
    official = official_protocol(dataset)
    if official is not None:
        return official, ()
    return GROUPED, (f"The data set {dataset} has no official split: grouped k-fold was applied.",)


def _check_fold(protocol: str, fold: int, count: int) -> None:
    if not 0 <= fold < count:
        folds = f"the folds 0 to {count - 1}" if count > 1 else "only fold 0"
        raise ConfigError(f"The protocol {protocol} has {folds} here, got {fold}.")


def _validation(rows: Rows, rest: list[int], protocol: Protocol, seed: int) -> tuple[list[int], tuple[str, ...]]:
    groups, strata = [rows[index].group for index in rest], [rows[index].stratum for index in rest]
    notes: tuple[str, ...] = ()
    if protocol.whole_groups and len(set(groups)) > 1:
        held = held_out_groups(groups, strata, protocol.validation_share, seed)
    else:
        held = held_out(strata, protocol.validation_share, seed)
        if protocol.whole_groups:
            notes = ("Only one group is left to train on, so validation has images of the same group.",)
    return [rest[position] for position in held], notes


def _leak_notes(rows: Rows, rest: list[int], test: list[int]) -> tuple[str, ...]:
    seen = {rows[index].group for index in rest}
    n_leaking = sum(rows[index].group in seen for index in test)
    if not n_leaking:
        return ()
    return (
        f"{n_leaking} of {len(test)} test images come from a group (patient, slide or source image) that is also in "
        "training or validation: scores are optimistic for unseen slides. The protocol grouped keeps groups apart.",
    )


def _unknown_notes(rows: Rows, dataset: str) -> tuple[str, ...]:
    if plain_name(dataset) in _ONE_SLIDE_AN_IMAGE or any(row.group != row.id for row in rows):
        return ()
    return (
        f"It is unknown which images of {dataset} share a patient or a slide, so every image is its own group. Images "
        "of one patient may be in both training and test: a leak cannot be ruled out.",
    )
