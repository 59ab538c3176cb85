"""Figures of trained runs for a paper: features as colours, overlays, violins, and an index of what they show."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from nucseg.errors import ConfigError
from nucseg_cache.key import label
from nucseg_pipeline.config import FiguresConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.evaluation.experiments import group_runs, joint_name, run_names
from nucseg_pipeline.evaluation.score_runs import (
    average_configurations,
    check_embeddings,
    inspected,
    predict_from_store,
    score_runs,
)
from nucseg_pipeline.evaluation.scored_images import prepared_grid
from nucseg_pipeline.evaluation.test_sets import TestSet, choose_images, external_test_set, own_test_set
from nucseg_pipeline.figures.panels import NAMED, ImageFigures, draw_violins
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run

DPI = 300
"""Resolution of pixel formats: what journals ask for with colour."""

INDEX = "README.md"

COLOURS = (
    "Percentages are shares of the variance over the cells that the components are fitted to, without padding. The 1st "
    "and the 99th percentile of a component are the ends of its colour range. The sign of a component is chosen so "
    "that its largest loading is positive."
)


@dataclass(frozen=True)
class FiguresResult:
    """What was written."""

    folder: Path
    files: tuple[Path, ...]
    """The figures, then the index."""
    notes: tuple[str, ...]


def figures(config: FiguresConfig, progress: Progress = lambda done, total, what: None) -> FiguresResult:
    """Draw encoders-IMAGE, levels-IMAGE, overlays and violins, and write an index of them.

    Runs are grouped and scored as in a report: folds and seeds of one configuration are one column. The first run that
    was tested on an image is drawn.

    Raises:
        ConfigError: a folder is no finished run, runs cannot be compared, an image is not a test image, or the folder
            cannot be written.
        DataError: features or predictions are not finite.
        nucseg_cache.CacheError: the store of a run is gone, damaged, or without the embeddings that guide it.
    """
    choose_device(config.device)
    opened = [Run.open(path, cache=config.cache) for path in config.runs]
    configurations = group_runs(dict(zip(config.names or run_names(config.runs), opened, strict=True)))
    if config.dataset:
        test_set = external_test_set(config.dataset, configurations, config.cache)
    else:
        test_set = own_test_set(configurations)
    test_set = inspected(test_set)
    for image_id in config.images:
        _check_image(image_id, test_set, opened)
    on_dataset = f"-on-{config.dataset}" if config.dataset else ""
    folder = config.out or Path("figures") / f"{joint_name(configurations)}{on_dataset}"
    check_writable(folder)
    check_embeddings(test_set, configurations)

    total, done = sum(map(len, test_set.ids.values())), count(1)
    scores = score_runs(
        test_set,
        configurations,
        predict_from_store(test_set, prepared_grid, config.device),
        lambda name: progress(next(done), total, "scoring"),
    )
    columns = average_configurations(configurations, scores)
    chosen = dict.fromkeys(config.images, NAMED) or choose_images(columns[0].values("dice"), config.n_images, seed=0)
    drawing = ImageFigures(test_set, configurations, config.device, chosen, scores)
    captions: dict[Path, str] = {}
    for drawn in (*drawing.draw(progress), draw_violins(test_set, columns)):
        file = folder / f"{drawn.stem}.{config.format}"
        if file in captions:
            file = folder / f"{drawn.stem}-{len(captions)}.{config.format}"
        write_files(folder, {file.name: _content(drawn.figure, config.format)})
        captions[file] = drawn.caption
    notes = tuple(dict.fromkeys((*test_set.notes, *test_set.store.notes, *drawing.notes)))
    write_files(folder, {INDEX: _index(config, folder, drawing, captions, notes)})
    return FiguresResult(folder, (*captions, folder / INDEX), notes)


def _check_image(image_id: str, test_set: TestSet, runs: Sequence[Run]) -> None:
    if image_id in test_set.all_ids:
        return
    if any(image_id in (*run.split.train, *run.split.validation) for run in runs):
        raise ConfigError(
            f"{image_id!r} is in the training or validation part of a run: a prediction for an image that was used in "
            f"training proves nothing. Choose one of the {len(test_set.all_ids)} test images, or leave --image out."
        )
    if image_id in test_set.not_scored_ids:
        raise ConfigError(
            f"Every pixel of {image_id!r} is ignored, so there are no true nuclei to compare with. Choose another of "
            f"the {len(test_set.all_ids)} test images, or leave --image out."
        )
    near = difflib.get_close_matches(image_id, test_set.all_ids, n=3, cutoff=0.4) or list(test_set.all_ids[:3])
    raise ConfigError(
        f"There is no image {image_id!r} among the {len(test_set.all_ids)} test images in {test_set.store.location}. "
        f"Similar names, or the first ones: {', '.join(map(repr, near))}."
    )


def _content(figure: Figure, kind: str) -> bytes:
    """The content of a figure's file; the same figure gives the same bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "nucseg", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=dates.get(kind))
    return buffer.getvalue()


def _index(
    config: FiguresConfig, folder: Path, drawing: ImageFigures, captions: Mapping[Path, str], notes: tuple[str, ...]
) -> str:
    runs = [
        f"- {name}"
        + (f" (of {configuration.name})" if len(configuration.runs) > 1 else "")
        + f": trained on {run.store.dataset}, model {run.config.model}, fusion {run.config.fusion}, "
        f"width {run.config.width}, fold {run.config.fold}, seed {run.config.seed}, "
        f"encoder: {label(run.inputs.embedding) or 'none'}"
        for configuration in drawing.configurations
        for name, run in configuration.runs.items()
    ]
    images = [f"- {image_id}: {why}" for image_id, why in drawing.chosen.items()]
    rule = f"Median, worst and best are by the foreground Dice of {drawing.configurations[0].name} on its test images."
    parts = {
        "Figures": ["Command that reproduces these figures:", "", f"    {command(replace(config, out=folder))}"],
        "Runs": runs,
        "Images": images if config.images else [*images, "", rule],
        "Files": [f"- **{file.name}**: {caption}" for file, caption in captions.items()],
        "Colours": [COLOURS],
        "Notes": [f"- {note}" for note in notes] or ["None."],
    }
    heads = {title: "#" if title == "Figures" else "##" for title in parts}
    return "\n".join(line for title, lines in parts.items() for line in (f"{heads[title]} {title}", "", *lines, ""))
