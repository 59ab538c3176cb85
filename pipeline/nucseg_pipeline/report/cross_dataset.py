"""The scores of several configurations on several data sets: one table for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nucseg.data.official_splits import is_same_dataset
from nucseg.metrics import Interval
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND
from nucseg_pipeline.report.summary import FORMAT, ReportSummary

MATRIX_METRICS = ("dice", "aji", "pq", "boundary_f1", "dice_weighted")
"""Metrics with a table; the reports on the single data sets have all metrics."""


@dataclass(frozen=True)
class Row:
    """One configuration, or the empty prediction."""

    name: str
    trained_on: str
    """Name of the data set it was trained on; empty for the empty prediction."""
    repeats: str
    cells: tuple[Mapping[str, Interval], ...]
    """Every metric, for each column."""

    def is_own(self, column: ReportSummary) -> bool:
        """Whether the configuration was trained on a column's data set, with any preparation."""
        return is_same_dataset(self.trained_on, column.dataset)


@dataclass(frozen=True)
class Matrix:
    """Scores of every configuration on every data set."""

    columns: tuple[ReportSummary, ...]
    """The report on each data set."""
    rows: tuple[Row, ...]
    """The configurations in order, then the empty prediction."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def first(self) -> ReportSummary:
        """The first report; grid, command, time and version are the same in all."""
        return self.columns[0]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as summary.json holds them."""
        cells = {
            row.name: {
                column.dataset: {name: asdict(interval) for name, interval in cell.items()}
                for column, cell in zip(self.columns, row.cells, strict=True)
            }
            for row in self.rows
        }
        about = {row.name: {"trained_on": row.trained_on, "repeats": row.repeats} for row in self.rows}
        fields = ("dataset", "protocol", "n_images", "not_scored", "n_groups")
        columns = {column.dataset: {name: getattr(column, name) for name in fields} for column in self.columns}
        return {
            "format": FORMAT,
            "kind": "matrix",
            "datasets": columns,
            "configurations": about,
            "matrix": cells,
            "notes": self.notes,
            "warnings": self.warnings,
            **{name: getattr(self.first, name) for name in ("grid", "command", "created", "nucseg")},
        }


def matrix(summaries: Sequence[ReportSummary]) -> Matrix:
    """Combine the summaries of several data sets; all are of the same configurations, in the same order."""
    rows = [
        Row(
            name=configuration.name,
            trained_on=configuration.trained_on,
            repeats=configuration.repeats,
            cells=tuple(summary.configurations[position].metrics for summary in summaries),
        )
        for position, configuration in enumerate(summaries[0].configurations)
    ]
    empty = Row(ALL_BACKGROUND, "", "", tuple(summary.all_background for summary in summaries))
    return Matrix(
        columns=tuple(summaries),
        rows=(*rows, empty),
        notes=tuple(f"{summary.dataset}: {note}" for summary in summaries for note in summary.notes),
        warnings=tuple(dict.fromkeys(warning for summary in summaries for warning in summary.warnings)),
    )
