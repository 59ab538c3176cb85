"""Figures of trained runs for a paper: features as colours, overlays, violins, and an index of what they show."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from nucseg.errors import ConfigError
from nucseg_cache.key import label
from nucseg_pipeline.config import FiguresConfig
from nucseg_pipeline.evaluation.experiments import Configuration, configurations, run_names
from nucseg_pipeline.evaluation.scored_images import prepared_grid
from nucseg_pipeline.evaluation.scores import RunScores, averaged, score_image
from nucseg_pipeline.evaluation.test_sets import TestSet, choose_images, external_test_set, own_test_set
from nucseg_pipeline.figures.panels import NAMED, Atlas, draw_violins, file_name
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run

DPI = 300
"""Of pictures: what journals ask for where there is colour."""

INDEX = "README.md"
"""The file that says what each figure shows."""

COLOURS = (
    "Percentages are shares of the variance over the cells that the components are fitted to, padding left out. The "
    "1st and the 99th percentile of a component are the ends of its colour. Of the two signs of a component, the one "
    "that makes its largest loading positive is taken."
)
"""How components become colours, for the index."""

MOST_NAMES = 3
"""Runs that the default folder is named after."""


@dataclass(frozen=True)
class FiguresResult:
    """What was written."""

    folder: Path
    files: tuple[Path, ...]
    """The figures, then the index."""
    notes: tuple[str, ...]
    """What a reader of the figures has to know."""


def figures(config: FiguresConfig, progress: Progress = lambda done, total, what: None) -> FiguresResult:
    """Draw encoders-IMAGE, levels-IMAGE, overlays and violins, and write an index beside them.

    Runs are gathered and scored as in a report; folds and seeds of one configuration are one column, and of these the
    first run that was tested on an image is drawn.

    Raises:
        ConfigError: a folder is no finished run, runs cannot be compared, an image is not one of those that they are
            tested on, or the folder cannot be written.
        DataError: features or predictions are not finite.
        nucseg_cache.CacheError: the store of a run is gone, damaged, or without the embeddings that guide it.
    """
    choose_device(config.device)
    opened = [Run.open(path, cache=config.cache) for path in config.runs]
    entrants = configurations(dict(zip(config.names or run_names(config.runs), opened, strict=True)))
    exam = external_test_set(config.dataset, entrants, config.cache) if config.dataset else own_test_set(entrants)
    for one in config.images:
        _check_image(one, exam, opened)
    folder = config.out or Path("figures") / _folder_name(entrants, config)
    check_writable(folder)

    scores = _scores(exam, entrants, config, progress)
    columns = [averaged(one.name, [scores[name] for name in one.runs if name in scores]) for one in entrants]
    chosen = dict.fromkeys(config.images, NAMED) or choose_images(columns[0].values("dice"), config.n_images, seed=0)
    atlas = Atlas(exam, entrants, config.device, chosen, scores)
    captions: dict[Path, str] = {}
    for drawn in (*atlas.draw(progress), draw_violins(exam, columns)):
        file = folder / f"{drawn.stem}.{config.format}"
        if file in captions:
            file = folder / f"{drawn.stem}-{len(captions)}.{config.format}"
        write_files(folder, {file.name: _content(drawn.figure, config.format)})
        captions[file] = drawn.caption
    notes = tuple(dict.fromkeys((*exam.notes, *exam.store.notes, *atlas.notes)))
    write_files(folder, {INDEX: _index(config, folder, atlas, captions, notes)})
    return FiguresResult(folder, (*captions, folder / INDEX), notes)


def _scores(
    exam: TestSet, entrants: tuple[Configuration, ...], config: FiguresConfig, progress: Progress
) -> dict[str, RunScores]:
    """Score every run on its test images, by run name."""
    sitting = {name: run for entrant in entrants for name, run in entrant.runs.items() if name in exam.ids}
    for name, run in sitting.items():  # whether everything is there shows before hours go into a part of it
        run.rows(exam.ids[name], store=exam.store_for(run))
    total, done = sum(len(exam.ids[name]) for name in sitting), 0
    scores = {}
    for name, run in sitting.items():
        images = []
        for prediction in run.predict(exam.ids[name], store=exam.store_for(run), device=config.device):
            images.append(score_image(prepared_grid(prediction), run.rule))
            done += 1
            progress(done, total, "scoring")
        scores[name] = RunScores(name, tuple(images))
    return scores


def _check_image(one: str, exam: TestSet, runs: list[Run]) -> None:
    if one in exam.all_ids:
        return
    if any(one in (*run.split.train, *run.split.validation) for run in runs):
        raise ConfigError(
            f"{one!r} is in the training or validation part of a run: what a network makes of an image that it was "
            f"fitted to is no evidence. Choose one of the {len(exam.all_ids)} test images, or leave --image out."
        )
    near = difflib.get_close_matches(one, exam.all_ids, n=3, cutoff=0.4) or list(exam.all_ids[:3])
    raise ConfigError(
        f"There is no image {one!r} among the {len(exam.all_ids)} test images in {exam.store.location}. "
        f"Near or first: {', '.join(map(repr, near))}."
    )


def _folder_name(entrants: tuple[Configuration, ...], config: FiguresConfig) -> str:
    names = [file_name(entrant.name) for entrant in entrants]
    name = "-vs-".join(names) if len(names) <= MOST_NAMES else f"{names[0]}-and-{len(names) - 1}-others"
    return f"{name}-on-{config.dataset}" if config.dataset else name


def _content(figure: Figure, kind: str) -> bytes:
    """What the file of a figure holds; the same figure gives the same bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "nucseg", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=dates.get(kind))
    return buffer.getvalue()


def _index(
    config: FiguresConfig, folder: Path, atlas: Atlas, captions: Mapping[Path, str], notes: tuple[str, ...]
) -> str:
    """The text of the index: the command, the runs, the images and why, and what each file shows."""
    runs = [
        f"- {name}" + (f" (of {entrant.name})" if len(entrant.runs) > 1 else "") + f": trained on {run.store.dataset}, "
        f"model {run.config.model}, fusion {run.config.fusion}, width {run.config.width}, fold {run.config.fold}, "
        f"seed {run.config.seed}, encoder: {label(run.inputs.embedding) or 'none'}"
        for entrant in atlas.entrants
        for name, run in entrant.runs.items()
    ]
    images = [f"- {one}: {why}" for one, why in atlas.chosen.items()]
    rule = f"Median, worst and best are by the foreground Dice of {atlas.entrants[0].name}, over all its test images."
    parts = {
        "Figures": ["Made by:", "", f"    {_command(config, folder)}"],
        "Runs": runs,
        "Images": images if config.images else [*images, "", rule],
        "Files": [f"- **{file.name}**: {caption}" for file, caption in captions.items()],
        "Colours": [COLOURS],
        "Notes": [f"- {note}" for note in notes] or ["None."],
    }
    heads = {title: "#" if title == "Figures" else "##" for title in parts}
    return "\n".join(line for title, lines in parts.items() for line in (f"{heads[title]} {title}", "", *lines, ""))


def _command(config: FiguresConfig, folder: Path) -> str:
    words = ["nucseg", "figures", *map(str, config.runs), "--out", str(folder)]
    words += [word for name in config.names for word in ("--name", name)]
    n_images = "" if config.images else str(config.n_images)
    options = {"--n-images": n_images, "--dataset": config.dataset, "--cache": config.cache, "--format": config.format}
    words += [word for option, value in options.items() if value for word in (option, value)]
    return shlex.join([*words, *(word for one in config.images for word in ("--image", one))])
