"""Configurations: runs that differ only in fold and seed are repeats of one configuration."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nucseg_pipeline.formatting import file_name
from nucseg_pipeline.runs.digests import FREE_FIELDS
from nucseg_pipeline.runs.run import Run

REPEATED = frozenset({"fold", "seed"})
"""Fields of a training configuration in which repeats differ."""

MAX_NAMES = 3
"""Most configurations that a folder is named after one by one."""

_REPEAT_SUFFIX = re.compile(r"[-_. ]+((fold|seed|run|f|s)[-_. ]*\d*)?$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Configuration:
    """A training configuration and its runs, at most one for each fold and seed."""

    name: str
    runs: Mapping[str, Run]
    """Run name -> run, at least one."""

    @property
    def first(self) -> Run:
        """The first run; the others differ from it only in fold and seed."""
        return next(iter(self.runs.values()))

    @property
    def dataset(self) -> str:
        """Name of the data set that the runs were trained on."""
        return self.first.store.dataset

    @property
    def is_guided(self) -> bool:
        """Whether embeddings guide the network."""
        return self.first.config.fusion != "none"

    @property
    def repeats(self) -> str:
        """Number of runs, folds and seeds in words; empty for a single run."""
        if len(self.runs) == 1:
            return ""
        listed = []
        for field in ("fold", "seed"):
            values = sorted({getattr(run.config, field) for run in self.runs.values()})
            listed.append(f"{field}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}")
        return f"{len(self.runs)} runs: {', '.join(listed)}"


def group_runs(runs: Mapping[str, Run]) -> tuple[Configuration, ...]:
    """Group runs, given by name, into configurations, in the order of their first runs.

    Repeats agree in everything that affects the result except fold and seed. This includes the images that were split:
    folds of a data set that has grown in between are not grouped. Two runs of the same fold and seed are not repeats:
    they become two configurations.
    """
    groups: list[dict[str, Run]] = []
    for name, run in runs.items():
        group = next((group for group in groups if _is_repeat(run, list(group.values()))), None)
        if group is None:
            groups.append({name: run})
        else:
            group[name] = run
    return tuple(map(Configuration, _configuration_names([list(group) for group in groups]), groups))


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name runs after their folders, with as many parent folders as it takes to make the names unique."""
    parts = [path.resolve().parts for path in paths]
    depths = range(1, max(map(len, parts)) + 1)
    candidates = (["/".join(part[-depth:]) for part in parts] for depth in depths)
    return next(names for names in candidates if len(set(names)) == len(names))


def joint_name(configurations: Sequence[Configuration]) -> str:
    """A folder name made from the names of some configurations, as `a-vs-b` or `a-and-5-others`."""
    names = [file_name(configuration.name) for configuration in configurations]
    return "-vs-".join(names) if len(names) <= MAX_NAMES else f"{names[0]}-and-{len(names) - 1}-others"


def unguided_references(configurations: Sequence[Configuration], baseline: str) -> dict[str, str]:
    """Name of each guided configuration -> name of the unguided one that it is compared with.

    That is the baseline if it is unguided, else the first unguided configuration. Empty if all are guided.
    """
    unguided = [configuration.name for configuration in configurations if not configuration.is_guided]
    if not unguided:
        return {}
    reference = baseline if baseline in unguided else unguided[0]
    return {configuration.name: reference for configuration in configurations if configuration.is_guided}


def _is_repeat(run: Run, others: Sequence[Run]) -> bool:
    taken = [(other.config.fold, other.config.seed) for other in others]
    return (run.config.fold, run.config.seed) not in taken and _identity(run) == _identity(others[0])


def _identity(run: Run) -> object:
    settings = {k: v for k, v in asdict(run.config).items() if k not in FREE_FIELDS | REPEATED}
    samples = {image_id: tuple(digests) for image_id, digests in run.inputs.samples.items()}
    return settings, dict(run.inputs.embedding), dict(run.inputs.preparation), samples


def _configuration_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """Name configurations after the common prefix of their runs' names; a single run gives its own name."""
    names = [_common_name(names) for names in groups]
    return [
        f"{name} ({names[: position + 1].count(name)})" if names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]


def _common_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(list(names))  # noqa: RUF071 -- a prefix of letters, not of folders
    return _REPEAT_SUFFIX.sub("", common) or names[0]
