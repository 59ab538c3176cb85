"""A report as text: the table of images, the summary for programs and the summary for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields

from nucseg.data.official_splits import is_same_dataset
from nucseg.metrics import Interval, PairedDifference, PixelCounts
from nucseg_pipeline.evaluation.comparison import Comparison
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND, IMAGE_METRICS, LOWER_IS_BETTER, METRICS, RunScores
from nucseg_pipeline.formatting import bounds, number, p_value, signed, size_words, spread_cells
from nucseg_pipeline.report.cross_dataset import MATRIX_METRICS, Column, Matrix, Row
from nucseg_pipeline.report.summary import ConfigurationSummary, ReportSummary

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
                  "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
"""With what a text begins that spreadsheets take for a formula."""


def csv_text(datasets: Mapping[str, Mapping[str, RunScores]], configuration: Mapping[str, str]) -> str:
    """Write one line an image and run: what it is, every score in full, the pixels counted, the nuclei.

    A spreadsheet computes a text that begins like a formula, and formulas can send data away: such a name has an
    apostrophe before it. summary.json has it as it is.

    Args:
        datasets: data set -> run name -> its scores there.
        configuration: run name -> name of its configuration.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    pixels = [f"{name.name}_px" for name in fields(PixelCounts)]
    about = ("dataset", "configuration", "run", "id", "group", "stratum")
    writer.writerow([*about, *IMAGE_METRICS, *pixels, "n_true", "n_predicted"])
    for dataset, runs in datasets.items():
        for name, run in runs.items():
            for image in run.images:
                what = map(_cell_text, (dataset, configuration[name], name, image.id, image.group, image.stratum))
                values = (image.values[metric] for metric in IMAGE_METRICS)
                writer.writerow([*what, *values, *astuple(image.counts), image.n_true, image.n_predicted])
    return table.getvalue()


def _cell_text(name: str) -> str:
    return f"'{name}" if name.lstrip().startswith(FORMULA_STARTS) else name


def json_text(told: ReportSummary | Matrix) -> str:
    """Write everything that a report says, for programs."""
    return json.dumps(told.as_json(), indent=1, allow_nan=False) + "\n"


def markdown_text(findings: ReportSummary) -> str:
    """Write the figures, the comparisons and what they rest on, for people."""
    lines = [
        f"# Nuclei segmentation on {findings.dataset}",
        "",
        *_warning_lines(findings.warnings),
        f"{findings.n_images} test images of {findings.n_groups} groups, protocol {findings.protocol}, scored on the "
        f"{findings.grid}. Means over images with 95 % bootstrap intervals over groups.",
        "",
        *(f"- {_inert(note)}" for note in findings.notes),
        "",
        *_metric_table(findings),
        "",
        *_spread_lines(findings.repeated),
        *_comparison_lines(findings.comparisons),
        *_size_lines(findings.configurations),
        *_empty_lines(findings),
        _WEIGHTED_NOTE,
        "",
        *_made_lines(findings),
    ]
    return "\n".join(lines) + "\n"


def matrix_markdown(told: Matrix) -> str:
    """Write the tables of configurations against data sets, for people."""
    names = [column.dataset for column in told.columns]
    lines = [
        f"# Nuclei segmentation on {', '.join(names[:-1])} and {names[-1]}",
        "",
        *_warning_lines(told.warnings),
        f"Scored on the {told.grid}. Means over images with 95 % bootstrap intervals over groups. A star marks a data "
        "set that the configuration was trained on, on other images; everywhere else it is scored across domains.",
        "",
        *(f"- {_inert(note)}" for note in told.notes),
        "",
    ]
    for metric in MATRIX_METRICS:
        lines += [f"## {metric}", "", *_matrix_table(told, metric), ""]
    return "\n".join([*lines, _WEIGHTED_NOTE, "", *_made_lines(told)]) + "\n"


def at_home(row: Row, column: Column) -> bool:
    """Whether a configuration was trained on a data set of the matrix, however it was prepared."""
    return is_same_dataset(row.trained_on, column.dataset)


_WEIGHTED_NOTE = (
    "Dice counts foreground alone. The weighted scores count background too, which is why the prediction that "
    f"finds nothing ({ALL_BACKGROUND}) does well by them; they are no headline. Of "
    f"{', '.join(sorted(LOWER_IS_BETTER))} less is better."
)


def _made_lines(told: ReportSummary | Matrix) -> list[str]:
    return [f"Made by nucseg {told.nucseg} on {told.created}:", "", f"    {told.command}"]


def _warning_lines(warnings: Sequence[str]) -> list[str]:
    return [f"> **Warning.** {_inert(warning)}\n" for warning in warnings]


def _matrix_table(told: Matrix, metric: str) -> list[str]:
    return [
        _row(["configuration", *(f"{c.dataset} ({c.n_images} images, {c.protocol})" for c in told.columns)]),
        _row(["---", *["---:"] * len(told.columns)]),
        *(
            _row(
                [
                    row.name,
                    *(
                        _cell(cell[metric], metric) + (" *" if at_home(row, column) else "")
                        for column, cell in zip(told.columns, row.cells, strict=True)
                    ),
                ]
            )
            for row in told.rows
        ),
    ]


def _metric_table(findings: ReportSummary) -> list[str]:
    rows = [(one.name, one.metrics) for one in findings.configurations]
    return [
        _row(["configuration", *METRICS]),
        _row(["---", *["---:"] * len(METRICS)]),
        *(
            _row([name, *(_cell(metrics[metric], metric) for metric in METRICS)])
            for name, metrics in [*rows, (ALL_BACKGROUND, findings.all_background)]
        ),
    ]


def _spread_lines(repeated: Sequence[ConfigurationSummary]) -> list[str]:
    if not repeated:
        return []
    return [
        "## Repeats",
        "",
        "Mean over folds, or over the seeds of one fold, with standard deviation, lowest and highest:",
        "",
        _row(["configuration", "over", "metric", "mean", "standard deviation", "lowest", "highest"]),
        _row(["---"] * 3 + ["---:"] * 4),
        *(
            _row([one.name, f"{one.spread_over} ({one.repeats})", metric, *spread_cells(over_runs, metric)])
            for one in repeated
            for metric, over_runs in one.spreads.items()
        ),
        "",
    ]


def _empty_lines(findings: ReportSummary) -> list[str]:
    counted = [(one.name, one.n_one_empty, one.n_predictions) for one in findings.configurations]
    counted.append((ALL_BACKGROUND, findings.n_one_empty_background, findings.n_images))
    told = "; ".join(f"{_inert(name)} {n_empty} of {n}" for name, n_empty, n in counted)
    return [f"hd95: where only one of truth and prediction is empty it is the image's diagonal ({told}).", ""]


def _size_lines(entrants: Sequence[ConfigurationSummary]) -> list[str]:
    bins = entrants[0].recall_by_size
    if not bins:
        return []
    return [
        "## Share of the true nuclei that are found, by size",
        "",
        _row(["configuration", *map(size_words, bins)]),
        _row(["---", *["---:"] * len(bins)]),
        *(_row([one.name, *(_cell(size.recall) for size in one.recall_by_size)]) for one in entrants),
        "",
    ]


def _comparison_lines(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return []
    table = [
        _row([c.name, c.baseline, metric, *_difference_cells(difference, c.holm_p[metric], metric)])
        for c in comparisons
        for metric, difference in c.differences.items()
    ]
    return [
        "## Differences on the same images",
        "",
        _row(
            [
                *("configuration", "minus", "metric", "difference", "95 % interval", "Wilcoxon", "after Holm"),
                *("better on", "worse on"),
            ]
        ),
        _row(["---"] * 3 + ["---:"] * 6),
        *table,
        "",
    ]


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


def _cell(interval: Interval, metric: str = "") -> str:
    if interval.low is None:
        return number(interval.value, metric)
    return f"{number(interval.value, metric)} ({bounds(interval, metric)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_inert(cell).replace("|", "\\|") for cell in cells) + " |"


def _inert(text: str) -> str:
    """A text in one line of Markdown, where names cannot be HTML."""
    return " ".join(text.split()).replace("<", "\\<")
