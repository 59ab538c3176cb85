"""Several configurations on several data sets, one table a metric; home and other domains are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nucseg.metrics import Interval
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND
from nucseg_pipeline.report.summary import FORMAT, ReportSummary

MATRIX_METRICS = ("dice", "aji", "pq", "boundary_f1", "dice_weighted")
"""Metrics that are shown as a matrix; the reports on the single data sets have all."""


@dataclass(frozen=True)
class Column:
    """One data set of the matrix."""

    dataset: str
    protocol: str
    n_images: int
    n_groups: int


@dataclass(frozen=True)
class Row:
    """One configuration, or the prediction that finds nothing."""

    name: str
    trained_on: str
    """Name of the data set it was trained on; empty for the prediction that finds nothing."""
    repeats: str
    """Which folds and seeds, in words; empty where it was trained once."""
    cells: tuple[Mapping[str, Interval], ...]
    """For each column every metric."""


@dataclass(frozen=True)
class Matrix:
    """Scores of every configuration on every data set."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """The configurations in order, then the prediction that finds nothing."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    grid: str
    command: str
    created: str
    nucseg: str

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
        columns = {column.dataset: asdict(column) for column in self.columns}
        names = ("notes", "warnings", "grid", "command", "created", "nucseg")
        told = {name: getattr(self, name) for name in names}
        return {
            "format": FORMAT,
            "kind": "matrix",
            "datasets": columns,
            "configurations": about,
            "matrix": cells,
            **told,
        }


def matrix(findings: Sequence[ReportSummary]) -> Matrix:
    """Put the findings on several data sets side by side; all are of the same configurations, in the same order."""
    first = findings[0]
    rows = [
        Row(
            name=one.name,
            trained_on=one.trained_on,
            repeats=one.repeats,
            cells=tuple(found.configurations[position].metrics for found in findings),
        )
        for position, one in enumerate(first.configurations)
    ]
    nothing = Row(ALL_BACKGROUND, "", "", tuple(found.all_background for found in findings))
    return Matrix(
        columns=tuple(Column(found.dataset, found.protocol, found.n_images, found.n_groups) for found in findings),
        rows=(*rows, nothing),
        notes=tuple(f"{found.dataset}: {note}" for found in findings for note in found.notes),
        warnings=tuple(dict.fromkeys(warning for found in findings for warning in found.warnings)),
        grid=first.grid,
        command=first.command,
        created=first.created,
        nucseg=first.nucseg,
    )
