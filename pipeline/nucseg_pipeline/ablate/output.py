"""The files of a table: ablation.json, ablation.md and ablation.html."""

from __future__ import annotations

import json
from collections.abc import Iterator

from nucseg_pipeline.ablate.table import (
    DIFFERENCES,
    DONE,
    NOT_RUN,
    PUBLISHED_AS,
    TABLE_METRICS,
    Table,
    TableRow,
    Tables,
)
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND
from nucseg_pipeline.formatting import difference, markdown_table, number, with_bounds
from nucseg_pipeline.templating import render

HEADINGS = {
    "dice": "Dice, foreground",
    "aji": "AJI",
    "pq": "PQ",
    "miou": "mIoU",
    "dice_weighted": "Dice, weighted",
    "iou_weighted": "IoU, weighted",
}
"""Metric -> its heading in the table."""

QUICK_WARNING = (
    "Small networks and few training steps: the scores indicate what is worth a full training. Do not compare them "
    "with published scores."
)


def output_files(tables: Tables) -> dict[str, str]:
    """File name -> content."""
    return {
        "ablation.json": json.dumps(tables.as_json(), indent=1, default=str),
        "ablation.md": _markdown(tables),
        "ablation.html": _page(tables),
    }


def spread(row: TableRow, metric: str = "dice") -> str:
    """Write the spread of a score over repeats; empty if a row was trained once."""
    over_runs = row.spreads.get(metric)
    if over_runs is None or over_runs.sd is None:
        return ""
    return f"{number(over_runs.mean)} ± {number(over_runs.sd)} over {row.spread_over}"


def published(row: TableRow) -> str:
    """Write the published scores; empty if there are none."""
    return " / ".join(f"{value:.4f}" for value in row.published.values())


def minutes(seconds: float) -> str:
    """Write a training time; empty for none."""
    return f"{seconds / 60:.1f} min" if seconds else ""


def reason(row: TableRow) -> str:
    """Write in one line why a row has no scores, or not all of its repeats."""
    return " ".join(row.why.split())


def _page(tables: Tables) -> str:
    return render(
        "ablation.html.j2",
        tables=tables,
        headings=HEADINGS,
        quick_warning=QUICK_WARNING,
        metrics=TABLE_METRICS,
        compared=DIFFERENCES,
        as_published=tuple(PUBLISHED_AS.values()),
        done=DONE,
        not_run=NOT_RUN,
        spread=spread,
        published=published,
        minutes=minutes,
        reason=reason,
    )


def _markdown(tables: Tables) -> str:
    return "\n".join(
        [
            f"# {tables.ablation.title}",
            "",
            *_introduction(tables),
            "",
            *(line for table in tables.tables for line in _table(table)),
            "## Provenance",
            "",
            f"    {tables.command}",
            "",
            f"nucseg {tables.nucseg}, {tables.created}, {tables.machine}. All rows were trained with: "
            + ", ".join(f"{name} {value}" for name, value in tables.settings.items())
            + ".",
            "",
        ]
    )


def _introduction(tables: Tables) -> Iterator[str]:
    if tables.quick:
        yield from (f"**Quick profile.** {QUICK_WARNING}", "")
    source = f"As in {tables.ablation.source}. " if tables.ablation.source else ""
    yield (
        f"{source}Scores are means over test images on the {tables.grid}, with 95 % bootstrap intervals over groups; "
        "differences are paired by image, with Wilcoxon's test."
    )
    if tables.ablation.published_note:
        yield from ("", f"Published: {tables.ablation.published_note}")


def _table(table: Table) -> Iterator[str]:
    yield from (f"## {table.dataset}", "")
    if table.done:
        yield from (f"{table.n_images} test images of {table.n_groups} groups, protocol {table.protocol}.", "")
    yield from markdown_table(["row", *(HEADINGS[name] for name in TABLE_METRICS)], list(_score_rows(table)))
    compared = [row for row in table.done if row.differences]
    yield from markdown_table(
        [f"minus {table.baseline}", *(HEADINGS[name] for name in DIFFERENCES)],
        [[row.name, *(difference(row.differences[name]) for name in DIFFERENCES)] for row in compared],
    )
    if any(row.published for row in table.rows):
        ours = PUBLISHED_AS.values()
        yield from markdown_table(
            ["row", "published Dice / mIoU", *(f"ours: {HEADINGS[name]}" for name in ours)],
            [[row.name, published(row), *(_score(row, name) for name in ours)] for row in table.rows],
        )
    yield from markdown_table(
        ["row", "parameters", "training", "images encoded", "repeats", "Dice over repeats"],
        [_cost(row) for row in table.rows if row.status != NOT_RUN],
    )
    yield from (f"- {row.name}: {reason(row)}" for row in table.done if row.why)
    yield from (f"- {note}" for note in table.notes)
    yield ""


def _score(row: TableRow, metric: str) -> str:
    return with_bounds(row.metrics[metric]) if metric in row.metrics else ""


def _cost(row: TableRow) -> list[str]:
    n_parameters = f"{row.n_parameters:,}" if row.n_parameters else ""
    return [row.name, n_parameters, minutes(row.seconds), str(row.n_encoded), row.repeats, spread(row)]


def _score_rows(table: Table) -> Iterator[list[str]]:
    for row in table.rows:
        if row.status != DONE:
            yield [f"{row.name}: **{row.status}**, {reason(row)}", *("" for _ in TABLE_METRICS)]
            continue
        same = f" (the same runs as {row.same_as})" if row.same_as else ""
        yield [row.name + same, *(_score(row, name) for name in TABLE_METRICS)]
    if table.all_background:
        yield [ALL_BACKGROUND, *(number(table.all_background[name].value) for name in TABLE_METRICS)]
