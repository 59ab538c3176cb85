"""Runs that are repeats of one another: the same configuration on other folds of its protocol or with other seeds."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nucseg_pipeline.runs.digests import FREE_FIELDS
from nucseg_pipeline.runs.run import Run

REPEATED = frozenset({"fold", "seed"})
"""Fields of a training's configuration in which repeats differ."""

_REPEAT_SUFFIX = re.compile(r"[-_. ]+((fold|seed|run|f|s)[-_. ]*\d*)?$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Configuration:
    """A configuration and its runs, at most one for each fold and seed."""

    name: str
    runs: Mapping[str, Run]
    """Name -> run, at least one."""

    @property
    def first(self) -> Run:
        """Stands for the others in all but fold and seed."""
        return next(iter(self.runs.values()))

    @property
    def dataset(self) -> str:
        """Name of the data set it was trained on."""
        return self.first.store.dataset

    @property
    def is_guided(self) -> bool:
        """Whether embeddings guide it."""
        return self.first.config.fusion != "none"

    @property
    def repeats(self) -> str:
        """Which folds and seeds, in words; empty where it was trained once."""
        if len(self.runs) == 1:
            return ""
        folds, seeds = (
            sorted({getattr(run.config, field) for run in self.runs.values()}) for field in ("fold", "seed")
        )
        return f"{len(self.runs)} runs: {_counted('fold', folds)}, {_counted('seed', seeds)}"


def configurations(runs: Mapping[str, Run]) -> tuple[Configuration, ...]:
    """Gather runs, given by name, into configurations, in the order of their first runs.

    Repeats agree in everything that decides a result, but for fold and seed: also in the images that were divided, so
    that folds of a data set that has grown in between are not put together. Two runs of one fold and seed are
    no repeats of each other: they stay apart, as two columns.
    """
    gathered: list[_Repeats] = []
    for name, run in runs.items():
        repeats = next((found for found in gathered if found.takes(run)), None)
        if repeats is None:
            repeats = _Repeats(_what(run))
            gathered.append(repeats)
        repeats.runs[name] = run
    names = _names([list(repeats.runs) for repeats in gathered])
    return tuple(Configuration(name, repeats.runs) for name, repeats in zip(names, gathered, strict=True))


@dataclass
class _Repeats:
    what: object
    runs: dict[str, Run] = field(default_factory=dict)

    def takes(self, run: Run) -> bool:
        taken = {(other.config.fold, other.config.seed) for other in self.runs.values()}
        return _what(run) == self.what and (run.config.fold, run.config.seed) not in taken


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name runs after their folders, with as many parents as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    depths = range(1, max(map(len, parts)) + 1)
    candidates = (["/".join(part[-depth:]) for part in parts] for depth in depths)
    return next(names for names in candidates if len(set(names)) == len(names))


def unguided_beside(entrants: Sequence[Configuration], baseline: str) -> dict[str, str]:
    """Name each guided configuration with the one without guidance that it is held against.

    That is the baseline, where it is not guided, else the first without guidance; without any the answer is empty.
    """
    unguided = [one.name for one in entrants if not one.is_guided]
    if not unguided:
        return {}
    against = baseline if baseline in unguided else unguided[0]
    return {one.name: against for one in entrants if one.is_guided}


def _what(run: Run) -> object:
    """What two repeats have in common."""
    settings = {k: v for k, v in asdict(run.config).items() if k not in FREE_FIELDS | REPEATED}
    divided = {one: tuple(digests) for one, digests in run.inputs.samples.items()}
    return settings, dict(run.inputs.embedding), dict(run.inputs.preparation), divided


def _names(members: Sequence[Sequence[str]]) -> list[str]:
    """Name configurations after what the names of their runs begin with; a single run gives its own name."""
    names = [_common(names) for names in members]
    taken = [name for name in names if names.count(name) > 1]
    return [
        f"{name} ({names[: position + 1].count(name)})" if name in taken else name
        for position, name in enumerate(names)
    ]


def _common(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(list(names))  # noqa: RUF071 -- letters are meant, not folders
    return _REPEAT_SUFFIX.sub("", common) or names[0]


def _counted(word: str, values: Sequence[int]) -> str:
    return f"{word}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
