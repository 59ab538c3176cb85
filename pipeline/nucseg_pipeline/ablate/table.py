"""The table: scores of each row, differences from the baseline, and published scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nucseg.metrics import Interval, PairedDifference, Spread
from nucseg_pipeline.ablate.table_recipe import Ablation

FORMAT = 1

TABLE_METRICS = ("dice", "aji", "pq", "miou", "dice_weighted", "iou_weighted")
"""Metrics of the table; the reports on its runs have all."""

DIFFERENCES = ("dice", "aji", "pq")
"""Metrics whose paired differences from the baseline are shown."""

PUBLISHED_AS = {"dice": "dice_weighted", "miou": "iou_weighted"}
"""Published metric -> our metric to compare it with: the published code weights scores by class."""

NOT_RUN, FAILED, DONE = "not run", "failed", "done"


@dataclass(frozen=True)
class TableRow:
    """One row."""

    name: str
    status: str
    why: str = ""
    same_as: str = ""
    """Name of an earlier row with the same runs; empty if there is none."""
    runs: tuple[str, ...] = ()
    repeats: str = ""
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    spread_over: str = ""
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    """Metric -> row minus baseline; empty for the baseline itself."""
    published: Mapping[str, float] = field(default_factory=dict)
    n_parameters: int = 0
    n_encoded: int = 0
    """Images that were encoded for this row."""
    seconds: float = 0.0
    """Wall time of training, summed over all of its runs, also those trained earlier."""


@dataclass(frozen=True)
class Table:
    """The rows of one data set."""

    dataset: str
    protocol: str = ""
    n_images: int = 0
    n_groups: int = 0
    baseline: str = ""
    rows: tuple[TableRow, ...] = ()
    all_background: Mapping[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    report: str = ""
    """Path of the report on the runs, relative to the table's folder; empty if no row was run."""

    @property
    def done(self) -> tuple[TableRow, ...]:
        """The rows with scores."""
        return tuple(row for row in self.rows if row.status == DONE)


@dataclass(frozen=True)
class Tables:
    """The table of every data set, and its provenance."""

    ablation: Ablation
    tables: tuple[Table, ...]
    settings: Mapping[str, Any]
    quick: bool
    grid: str
    command: str
    machine: str
    created: str
    nucseg: str

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as ablation.json holds them."""
        return {
            "format": FORMAT,
            "kind": "ablation",
            "recipe": self.ablation.name,
            "title": self.ablation.title,
            "source": self.ablation.source,
            "published_note": self.ablation.published_note,
            "tables": {
                table.dataset: {**asdict(table), "rows": {row.name: asdict(row) for row in table.rows}}
                for table in self.tables
            },
            **{name: getattr(self, name) for name in ("settings", "quick", "grid", "command", "machine")},
            **{name: getattr(self, name) for name in ("created", "nucseg")},
        }
