"""Sum up what was found in the masks of a data set, as notes for commands and reports."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from nucseg.data.masks import MaskFacts

KINDS = {
    "cover": (
        "have one nucleus over more than a third of the image",
        "Check whether they are inverted, or mark the background or void with a value of its own.",
    ),
    "foreground": ("have nuclei on more than half of the image", "Check whether they are inverted."),
    "void": (
        "have a value with all bits set next to few other ids",
        "If it marks an area to ignore, write that to ignore/<name>.png, and 0 into the mask.",
    ),
    "split": (
        "have ids in several pieces",
        "Check that their values are ids of nuclei, not classes: a nucleus is one piece.",
    ),
    "regions": (
        "have outlines around several others, or far larger than the detected nuclei, taken as regions and left out",
        "",
    ),
    "ignored": ("have outlines of ignored areas", ""),
    "shapeless": ("have points, lines, tiles or other objects that are no outlines of nuclei, left out", ""),
    "outside": ("have outlines without a pixel in the image, left out", ""),
    "cut": ("have outlines that reach beyond the image, cut at its edge", ""),
    "covered": ("have outlines that others cover completely, left out", ""),
    "overlapping": ("have outlines that overlap; the smaller nucleus keeps the pixels", ""),
}
"""Kind of finding -> the end of the sentence 'n of m masks ...', and advice."""

_CLASSES = "Classes of nuclei in the masks (counted here only, since a store has no place for them)"
_EXAMPLES = 5
_MASK_NOTE = re.compile(rf"\d+ of \d+ masks .*|{re.escape(_CLASSES)}: .*", re.DOTALL)


def mask_notes(facts: Mapping[str, MaskFacts]) -> tuple[str, ...]:
    """Notes on the masks of a data set, given the id of each image -> the facts on its mask; none if all is usual."""
    findings = [
        note
        for kind in KINDS
        if (note := _finding(kind, [(id_, fact.findings[kind]) for id_, fact in facts.items() if kind in fact.findings],
                             len(facts)))
    ]  # fmt: skip
    return (*_binary(list(facts.values())), *_classes(facts), *findings)


def is_mask_note(note: str) -> bool:
    """Whether a note was made by `mask_notes`."""
    return _MASK_NOTE.fullmatch(note) is not None


def _binary(facts: Sequence[MaskFacts]) -> list[str]:
    n_pieces = [fact.n_pieces for fact in facts if fact.n_pieces is not None]
    if not n_pieces:
        return []
    return [
        f"{len(n_pieces)} of {len(facts)} masks are binary: {sum(n_pieces)} pieces; touching nuclei are one. Instance "
        "maps would keep them apart."
    ]


def _classes(facts: Mapping[str, MaskFacts]) -> list[str]:
    counts: Counter[str] = Counter()
    for fact in facts.values():
        counts.update(fact.classes)
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return [f"{_CLASSES}: {listed}."] if counts else []


def _finding(kind: str, found: Sequence[tuple[str, str]], n_masks: int) -> str:
    if not found:
        return ""
    what, advice = KINDS[kind]
    more = f" and {len(found) - _EXAMPLES} more" if len(found) > _EXAMPLES else ""
    examples = ", ".join(f"{id_} ({detail})" for id_, detail in found[:_EXAMPLES])
    return f"{len(found)} of {n_masks} masks {what}: {examples}{more}.{f' {advice}' if advice else ''}"
