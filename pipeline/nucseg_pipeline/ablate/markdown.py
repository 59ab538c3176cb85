"""A table as text: cells that the page shares, and Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from nucseg.metrics import PairedDifference
from nucseg_pipeline.ablate.table import DIFFERENCES, DONE, NOT_RUN, PUBLISHED_BESIDE, SHOWN, Table, TableRow, Tables
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND
from nucseg_pipeline.formatting import bounds, number, p_value, signed

HEADINGS = {
    "dice": "Dice, foreground",
    "aji": "AJI",
    "pq": "PQ",
    "miou": "mIoU",
    "dice_weighted": "Dice, weighted",
    "iou_weighted": "IoU, weighted",
}
"""Metric -> its heading in the table."""


def score(row: TableRow, metric: str) -> str:
    """Write a score with its interval; empty where there is none."""
    found = row.metrics.get(metric)
    return f"{number(found.value)} ({bounds(found)})" if found else ""


def spread(row: TableRow, metric: str = "dice") -> str:
    """Write how a score spreads over repeats; empty where a row was trained once."""
    found = row.spreads.get(metric)
    if found is None or found.sd is None:
        return ""
    return f"{number(found.mean)} ± {number(found.sd)} over {row.spread_over}"


def difference(paired: PairedDifference) -> str:
    """Write a paired difference from the baseline, with its interval and its test."""
    return (
        f"{signed(paired.difference.value)} ({bounds(paired.difference, write=signed)}), "
        f"{p_value(paired.wilcoxon_p)}, better on {paired.n_better}, worse on {paired.n_worse}"
    )


def published(row: TableRow) -> str:
    """Write what the source reports; empty where it reports nothing."""
    return " / ".join(f"{value:.4f}" for value in row.published.values())


def minutes(seconds: float) -> str:
    """Write a time of training."""
    return f"{seconds / 60:.1f} min" if seconds else ""


def reason(row: TableRow) -> str:
    """Say in one line why a row has no scores, or not all."""
    return " ".join(row.why.split())


def tables_markdown(tables: Tables) -> str:
    """Write every table, what was published beside it, and how it was made, for people."""
    return "\n".join(
        [
            f"# {tables.ablation.title}",
            "",
            *_about(tables),
            "",
            *(line for table in tables.tables for line in _table(table)),
            "## How this was made",
            "",
            f"    {tables.command}",
            "",
            f"nucseg {tables.nucseg}, {tables.created}, {tables.machine}. All rows were trained with: "
            + ", ".join(f"{name} {value}" for name, value in tables.settings.items())
            + ".",
            "",
        ]
    )


def _about(tables: Tables) -> Iterator[str]:
    if tables.quick:
        yield (
            "**Quick profile**: small networks and few steps. An orientation of what is worth a full training, not a "
            "result to hold against published ones."
        )
        yield ""
    where = f"As in {tables.ablation.source}. " if tables.ablation.source else ""
    yield (
        f"{where}Scores are means over test images on the {tables.grid}, with 95 % bootstrap intervals over groups; "
        "differences are paired, image by image, with Wilcoxon's test."
    )
    if tables.ablation.published_note:
        yield ""
        yield f"Published: {tables.ablation.published_note}"


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.dataset}"
    yield ""
    if table.done:
        yield f"{table.n_images} test images of {table.n_groups} groups, protocol {table.protocol}."
        yield ""
    yield from _grid(["row", *(HEADINGS[name] for name in SHOWN)], list(_score_rows(table)))
    if any(row.differences for row in table.rows):
        yield from _grid(
            [f"minus {table.baseline}", *(HEADINGS[name] for name in DIFFERENCES)],
            [
                [row.name, *(difference(row.differences[name]) for name in DIFFERENCES)]
                for row in table.done
                if row.differences
            ],
        )
    if any(row.published for row in table.rows):
        yield from _grid(
            ["row", "published Dice / mIoU", *(f"ours: {HEADINGS[name]}" for name in PUBLISHED_BESIDE.values())],
            [[r.name, published(r), *(score(r, name) for name in PUBLISHED_BESIDE.values())] for r in table.rows],
        )
    yield from _grid(
        ["row", "parameters", "training", "images encoded", "repeats", "Dice over repeats"],
        [
            [r.name, f"{r.n_parameters:,}" if r.n_parameters else "", minutes(r.seconds), str(r.n_encoded), r.repeats,
             spread(r)]
            for r in table.rows if r.status != NOT_RUN
        ],
    )  # fmt: skip
    for row in table.rows:
        if row.why and row.status == DONE:
            yield f"- {row.name}: {reason(row)}"
    yield from (f"- {note}" for note in table.notes)
    yield ""


def _score_rows(table: Table) -> Iterator[list[str]]:
    for row in table.rows:
        if row.status != DONE:
            yield [f"{row.name}: **{row.status}**, {reason(row)}", *("" for _ in SHOWN)]
            continue
        same = f" (the same runs as {row.same_as})" if row.same_as else ""
        yield [row.name + same, *(score(row, name) for name in SHOWN)]
    if table.all_background:
        yield [ALL_BACKGROUND, *(number(table.all_background[name].value) for name in SHOWN)]


def _grid(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return
    for cells in (head, ["---", *("---:" for _ in head[1:])], *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
