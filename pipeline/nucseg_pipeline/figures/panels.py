"""The figures of some images: encoder embeddings, layers of the networks, predictions, and violins of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure

from nucseg.encoders.architectures import ARCHITECTURES
from nucseg.figures import (
    PrincipalColours,
    Scene,
    encoder_panels,
    feature_caption,
    feature_panels,
    network_panels,
    overlays,
    violin,
    without_padding,
)
from nucseg.models.features import encoder_features
from nucseg_cache import Key
from nucseg_cache.key import label
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.score_runs import predict_from_store
from nucseg_pipeline.evaluation.scored_images import prepared_grid
from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.formatting import file_name
from nucseg_pipeline.loading.batch import collate
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run

NAMED = "named with --image"

MAX_LETTERS = 24
"""Most characters of an image's id in the label of its row."""


@dataclass(frozen=True, eq=False)
class CaptionedFigure:
    """A figure with its file name, without the ending, and its caption."""

    stem: str
    figure: Figure
    caption: str


@dataclass(frozen=True, eq=False)
class ImageFigures:
    """Draws the figures of some images."""

    test_set: TestSet
    configurations: tuple[Configuration, ...]
    device: str
    chosen: Mapping[str, str]
    """Image id -> why it is shown."""
    scores: Mapping[str, RunScores]
    """Run name -> its scores."""

    def draw(self, progress: Progress) -> Iterator[CaptionedFigure]:
        """Draw the encoders and levels of every image, then the overlays of all."""
        for done, image_id in enumerate(self.chosen):
            progress(done, len(self.chosen), "drawing")
            if self.encoders:
                yield self._encoders(image_id)
            for configuration in self.configurations:
                yield self._levels(configuration, image_id)
        yield self._overlays()
        progress(len(self.chosen), len(self.chosen), "drawing")

    @cached_property
    def encoders(self) -> dict[str, tuple[Key, PrincipalColours]]:
        """Short name -> key and fitted colours of every encoder that has embedded all the images."""
        store = self.test_set.store
        rows = [store.row_of(image_id) for image_id in self.chosen]
        keys = [
            key
            for key in store.keys()  # noqa: SIM118 - a method of Store
            if "identity" in store.views(key) and not set(rows) & set(store.embeddings(key).missing())
        ]
        published = [*ARCHITECTURES, *(key.fields.get("architecture", "") for key in keys)]
        keys.sort(key=lambda key: published.index(key.fields.get("architecture", "")))
        colours = [
            PrincipalColours.fit(
                [
                    without_padding(embedding, store.info(row).size)
                    for row, embedding in zip(rows, store.embeddings(key).read(rows), strict=True)
                ]
            )
            for key in keys
        ]
        return dict(zip(short_names(keys), zip(keys, colours, strict=True), strict=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes recorded with the encoders, and which figure is missing."""
        store = self.test_set.store
        notes = [str(store.recorded(key).get("note", "")) for key, _ in self.encoders.values()]
        if not self.encoders:
            notes.append(f"No figure compares encoders: no encoder in {store.location} has embedded all these images.")
        return tuple(note for note in notes if note)

    def _encoders(self, image_id: str) -> CaptionedFigure:
        store = self.test_set.store
        row = store.row_of(image_id)
        (sample,) = store.read_samples([row])
        embeddings = {
            name: (store.embeddings(key).read([row])[0], colours) for name, (key, colours) in self.encoders.items()
        }
        panels = encoder_panels(sample.image, sample.instances, sample.size, embeddings)
        names = "; ".join(f"{name} is {label(key.fields)}" for name, (key, _) in self.encoders.items())
        caption = (
            f"{image_id}: image, true nuclei, and the first three principal components of its embedding as red, green "
            "and blue. They are fitted to the cells of all images in this folder, separately for each encoder: a "
            "colour of one encoder means the same in every image; colours of different encoders cannot be compared. "
            f"{feature_caption(panels)}. {names}."
        )
        return CaptionedFigure(f"encoders-{self.stems[image_id]}", feature_panels(panels), caption)

    def _levels(self, configuration: Configuration, image_id: str) -> CaptionedFigure:
        name, run = self._run_for(configuration, image_id)
        row = run.rows([image_id], store=self.test_set.store_for(run))[0]
        device = choose_device(self.device)
        batch = collate([row]).to(device)
        features = encoder_features(run.model.to(device), batch.image, batch.embedding)
        panels = network_panels(features, row.sample.size)
        guidance = (
            f"The embedding is of {label(run.inputs.embedding)}; the concatenation is the latent (level 5) and the "
            "embedding averaged to its grid, each channel scaled to variance 1."
            if run.inputs.embedding
            else "The run is not guided: there is no embedding, concatenation or fusion to show."
        )
        caption = (
            f"{image_id} in {name} ({run.config.model}, fusion {run.config.fusion}, width {run.config.width}): the "
            "first three principal components of each layer as red, green and blue, fitted separately, so that colours "
            f"of different panels cannot be compared. {feature_caption(panels)}. {guidance}"
        )
        suffix = [] if len(self.configurations) == 1 else [file_name(configuration.name)]
        return CaptionedFigure("-".join(["levels", *suffix, self.stems[image_id]]), feature_panels(panels), caption)

    def _overlays(self) -> CaptionedFigure:
        rows = "; ".join(f"{image_id} ({why})" for image_id, why in self.chosen.items())
        caption = (
            "Rows are images; columns are the image, its true nuclei and the prediction of each run: missed pixels "
            "blue, added ones orange, ignored ones grey; below, the foreground Dice of the image. "
            f"Rows: {rows}."
        )
        return CaptionedFigure("overlays", overlays([self._scene(image_id) for image_id in self.chosen]), caption)

    def _scene(self, image_id: str) -> Scene:
        predictions, dice = {}, {}
        for configuration in self.configurations:
            name, run = self._run_for(configuration, image_id)
            (image,) = predict_from_store(self.test_set, prepared_grid, self.device)(run, [image_id])
            predictions[configuration.name] = image.predicted(run.rule)
            dice[configuration.name] = f"Dice {self.scores[name].values('dice')[image_id]:.3f}"
        last, why = image_id.rpartition("/")[2], self.chosen[image_id]
        short = last if len(last) <= MAX_LETTERS else f"{last[: MAX_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        return Scene(
            label=short if why == NAMED else f"{short}\n{why}",
            image=image.image,
            truth=image.instances,
            ignore=image.ignore,
            predictions=predictions,
            remarks=dice,
        )

    def _run_for(self, configuration: Configuration, image_id: str) -> tuple[str, Run]:
        """The first run of a configuration that was tested on an image."""
        ((name, run, _),) = self.test_set.first_runs(configuration, [image_id])
        return name, run

    @cached_property
    def stems(self) -> dict[str, str]:
        """Image id -> unique part of its file names."""
        stems: dict[str, str] = {}
        for image_id in self.chosen:
            name = candidate = file_name(image_id)
            while candidate in stems.values():
                candidate = f"{name}-{len(stems)}"
            stems[image_id] = candidate
        return stems


def draw_violins(test_set: TestSet, columns: Sequence[RunScores]) -> CaptionedFigure:
    """Draw the distribution of the Dice over images for every configuration."""
    values = {column.name: list(column.values("dice").values()) for column in columns}
    means = "; ".join(f"{name} {np.mean(dice):.3f} (SD {np.std(dice):.3f})" for name, dice in values.items())
    repeats = " The Dice of an image is the mean over repeats." if any(column.repeats for column in columns) else ""
    caption = (
        f"Foreground Dice of each of {len(test_set.all_ids)} test images of {test_set.store.dataset} "
        f"({test_set.protocol}): a dot is an image, the bar is the mean, and a violin spans from the lowest to the "
        f"highest.{repeats} Means: {means}."
    )
    return CaptionedFigure("violins", violin(values), caption)


def short_names(keys: Sequence[Key]) -> list[str]:
    """The architecture of each key, and the fields that differ from others of that architecture; all unique."""
    names = []
    for key in keys:
        name = key.fields.get("architecture", "encoder")
        alike = [other.fields for other in keys if other.fields.get("architecture") == key.fields.get("architecture")]
        differing = {field for field, value in key.fields.items() if any(other.get(field) != value for other in alike)}
        if name not in ARCHITECTURES:  # "onnx", for example, does not identify the model
            differing |= {"weights"} & key.fields.keys()
        names.append(" ".join([name, *(key.fields[field][:8] for field in sorted(differing))]))
    return [name if names.count(name) == 1 else f"{name} {key.hash[:8]}" for name, key in zip(names, keys, strict=True)]
