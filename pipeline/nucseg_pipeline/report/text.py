"""A report as text: per_image.csv, summary.json and summary.md."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields

from nucseg.metrics import PairedDifference, PixelCounts
from nucseg_cache import RowInfo
from nucseg_pipeline.evaluation.comparison import Comparison
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND, IMAGE_METRICS, LOWER_IS_BETTER, METRICS, RunScores
from nucseg_pipeline.formatting import (
    bounds,
    markdown_table,
    p_value,
    plain_line,
    signed,
    size_words,
    spread_cells,
    with_bounds,
)
from nucseg_pipeline.report.cross_dataset import MATRIX_METRICS, Matrix
from nucseg_pipeline.report.summary import ConfigurationSummary, ReportSummary

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
                  "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
"""Characters that make spreadsheets read a text as a formula."""

_WEIGHTED_NOTE = (
    "Dice counts only the foreground. The weighted scores also count background, so that an empty prediction "
    f"({ALL_BACKGROUND}) scores well by them; do not rank by them. Lower is better for "
    f"{', '.join(sorted(LOWER_IS_BETTER))}."
)


def csv_text(
    datasets: Mapping[str, Mapping[str, RunScores]],
    configurations: Mapping[str, str],
    not_scored: Mapping[str, Mapping[str, Sequence[RowInfo]]] | None = None,
) -> str:
    """Write one line for each image and run: ids, every score with all digits, counts of pixels and nuclei.

    Images in which every pixel is ignored have no scores, and no pixels.

    Spreadsheets evaluate text that begins like a formula, and formulas can send data away: such a name gets a leading
    apostrophe. summary.json has the names unchanged.

    Args:
        datasets: data set -> run name -> its scores there.
        configurations: run name -> name of its configuration.
        not_scored: data set -> run name -> images in which every pixel is ignored.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    pixels = [f"{name.name}_px" for name in fields(PixelCounts)]
    names = ("dataset", "configuration", "run", "id", "group", "stratum")
    writer.writerow([*names, *IMAGE_METRICS, *pixels, "n_true", "n_predicted"])
    for dataset, runs in datasets.items():
        for name, run in runs.items():
            for image in run.images:
                cells = map(_cell_text, (dataset, configurations[name], name, image.id, image.group, image.stratum))
                values = (image.values[metric] for metric in IMAGE_METRICS)
                writer.writerow([*cells, *values, *astuple(image.counts), image.n_true, image.n_predicted])
            for info in (not_scored or {}).get(dataset, {}).get(name, ()):
                cells = map(_cell_text, (dataset, configurations[name], name, info.id, info.group, info.stratum))
                writer.writerow([*cells, *[""] * len(IMAGE_METRICS), *[0] * len(pixels), "", ""])
    return table.getvalue()


def _cell_text(name: str) -> str:
    return f"'{name}" if name.lstrip().startswith(FORMULA_STARTS) else name


def json_text(content: ReportSummary | Matrix) -> str:
    """Write summary.json."""
    return json.dumps(content.as_json(), indent=1, allow_nan=False) + "\n"


def markdown_text(summary: ReportSummary) -> str:
    """Write summary.md of one data set: scores, comparisons and their caveats."""
    lines = [
        f"# Nuclei segmentation on {summary.dataset}",
        "",
        *_warning_lines(summary.warnings),
        f"{summary.n_images} test images of {summary.n_groups} groups, protocol {summary.protocol}, scored on the "
        f"{summary.grid}. Means over images with 95 % bootstrap intervals over groups.",
        "",
        *(f"- {plain_line(note)}" for note in summary.notes),
        "",
        *_metric_table(summary),
        *_spread_lines(summary.repeated),
        *_comparison_lines(summary.comparisons),
        *_size_lines(summary.configurations),
        *_empty_lines(summary),
        _WEIGHTED_NOTE,
        "",
        *_provenance_lines(summary),
    ]
    return "\n".join(lines) + "\n"


def matrix_markdown(matrix: Matrix) -> str:
    """Write summary.md of several data sets."""
    names = [column.dataset for column in matrix.columns]
    lines = [
        f"# Nuclei segmentation on {', '.join(names[:-1])} and {names[-1]}",
        "",
        *_warning_lines(matrix.warnings),
        f"Scored on the {matrix.first.grid}. Means over images with 95 % bootstrap intervals over groups. A star marks "
        "a data set that the configuration was trained on, on other images; all other scores are across domains.",
        "",
        *(f"- {plain_line(note)}" for note in matrix.notes),
        "",
    ]
    for metric in MATRIX_METRICS:
        lines += [f"## {metric}", "", *_matrix_table(matrix, metric)]
    return "\n".join([*lines, _WEIGHTED_NOTE, "", *_provenance_lines(matrix.first)]) + "\n"


def _provenance_lines(content: ReportSummary) -> list[str]:
    return [f"Written by nucseg {content.nucseg} on {content.created}:", "", f"    {content.command}"]


def _warning_lines(warnings: Sequence[str]) -> list[str]:
    return [f"> **Warning.** {plain_line(warning)}\n" for warning in warnings]


def _matrix_table(matrix: Matrix, metric: str) -> Iterator[str]:
    head = ["configuration", *(f"{c.dataset} ({c.n_images} images, {c.protocol})" for c in matrix.columns)]
    rows = [
        [
            row.name,
            *(
                with_bounds(cell[metric], metric) + (" *" if row.is_own(column) else "")
                for column, cell in zip(matrix.columns, row.cells, strict=True)
            ),
        ]
        for row in matrix.rows
    ]
    return markdown_table(head, rows)


def _metric_table(summary: ReportSummary) -> Iterator[str]:
    columns = [(configuration.name, configuration.metrics) for configuration in summary.configurations]
    rows = [
        [name, *(with_bounds(metrics[metric], metric) for metric in METRICS)]
        for name, metrics in [*columns, (ALL_BACKGROUND, summary.all_background)]
    ]
    return markdown_table(["configuration", *METRICS], rows)


def _spread_lines(repeated: Sequence[ConfigurationSummary]) -> Iterator[str]:
    if repeated:
        yield from ("## Repeats", "")
        yield from ("Mean over folds, or over the seeds of one fold, with standard deviation, lowest and highest:", "")
    head = ["configuration", "over", "metric", "mean", "standard deviation", "lowest", "highest"]
    rows = [
        [item.name, f"{item.spread_over} ({item.repeats})", metric, *spread_cells(over_runs, metric)]
        for item in repeated
        for metric, over_runs in item.spreads.items()
    ]
    yield from markdown_table(head, rows, n_words=3)


def _empty_lines(summary: ReportSummary) -> list[str]:
    counts = [(item.name, item.n_one_empty, item.n_predictions) for item in summary.configurations]
    counts.append((ALL_BACKGROUND, summary.n_one_empty_background, summary.n_images))
    listed = "; ".join(f"{plain_line(name)} {n_empty} of {n}" for name, n_empty, n in counts)
    return [f"hd95 is the diagonal of the image where only truth or only prediction is empty ({listed}).", ""]


def _size_lines(configurations: Sequence[ConfigurationSummary]) -> Iterator[str]:
    bins = configurations[0].recall_by_size
    if bins:
        yield from ("## Recall of true nuclei by size", "")
        rows = [[item.name, *(with_bounds(size.recall) for size in item.recall_by_size)] for item in configurations]
        yield from markdown_table(["configuration", *map(size_words, bins)], rows)


def _comparison_lines(comparisons: Sequence[Comparison]) -> Iterator[str]:
    if comparisons:
        yield from ("## Differences on the same images", "")
    head = ["configuration", "minus", "metric", "difference", "95 % interval", "Wilcoxon", "after Holm"]
    rows = [
        [c.name, c.baseline, metric, *_difference_cells(difference, c.holm_p[metric], metric)]
        for c in comparisons
        for metric, difference in c.differences.items()
    ]
    yield from markdown_table([*head, "better on", "worse on"], rows, n_words=3)


def _difference_cells(difference: PairedDifference, corrected: float, metric: str) -> list[str]:
    ends = difference.difference
    return [
        signed(ends.value, metric),
        bounds(ends, metric, signed),
        p_value(difference.wilcoxon_p),
        p_value(corrected),
        str(difference.n_better),
        str(difference.n_worse),
    ]
