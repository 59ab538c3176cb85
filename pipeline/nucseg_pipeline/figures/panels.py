"""Some images as several trained configurations, and the encoders behind them, see them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
from nucseg.nuclei.instances import separate
from nucseg_cache import Key
from nucseg_cache.key import label
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.scored_images import prepared_grid
from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.loading.batch import collate
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run

NAMED = "named with --image"
"""Why an image is shown that was not chosen by a rule."""

MOST_LETTERS = 24
"""Letters of an image's id beside its row."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure, what its file is called without the ending, and what it shows."""

    stem: str
    figure: Figure
    caption: str


@dataclass(frozen=True, eq=False)
class Atlas:
    """Draws some images as several configurations see them."""

    exam: TestSet
    entrants: tuple[Configuration, ...]
    device: str
    chosen: Mapping[str, str]
    """Image id -> why it is shown."""
    scores: Mapping[str, RunScores]
    """Run name -> its scores."""

    def draw(self, progress: Progress) -> Iterator[Drawn]:
        """Draw everything but the violins."""
        for done, one in enumerate(self.chosen):
            progress(done, len(self.chosen), "drawing")
            if self.encoders:
                yield self._encoders(one)
            for entrant in self.entrants:
                yield self._levels(entrant, one)
        yield self._overlays()
        progress(len(self.chosen), len(self.chosen), "drawing")

    @cached_property
    def encoders(self) -> dict[str, tuple[Key, PrincipalColours]]:
        """Short name -> the key of every encoder that has embedded all the images, and the colours fitted to them."""
        store = self.exam.store
        rows = [store.row_of(one) for one in self.chosen]
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
        return dict(zip(_short_names(keys), zip(keys, colours, strict=True), strict=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the encoders say of themselves, and which figure is missing."""
        store = self.exam.store
        told = [str(store.recorded(key).get("note", "")) for key, _ in self.encoders.values()]
        if not self.encoders:
            told.append(f"{store.location} holds no embeddings of all these images: no figure compares encoders.")
        return tuple(note for note in told if note)

    def _encoders(self, one: str) -> Drawn:
        store = self.exam.store
        row = store.row_of(one)
        (sample,) = store.read_samples([row])
        embeddings = {
            name: (store.embeddings(key).read([row])[0], colours) for name, (key, colours) in self.encoders.items()
        }
        panels = encoder_panels(sample.image, sample.instances, sample.size, embeddings)
        which = "; ".join(f"{name} is {label(key.fields)}" for name, (key, _) in self.encoders.items())
        caption = (
            f"{one}: image, true nuclei, and the first three principal components of its embedding as red, green and "
            "blue. They are fitted to the cells of all images shown in this folder, for each encoder apart: a colour "
            "of one encoder means the same in every image, and nothing between encoders. "
            f"{feature_caption(panels)}. {which}."
        )
        return Drawn(f"encoders-{self._stems[one]}", feature_panels(panels), caption)

    def _levels(self, entrant: Configuration, one: str) -> Drawn:
        name, run = self._run_for(entrant, one)
        row = run.rows([one], store=self.exam.store_for(run))[0]
        device = choose_device(self.device)
        batch = collate([row]).to(device)
        seen = encoder_features(run.network().to(device), batch.image, batch.embedding)
        panels = network_panels(seen, row.sample.size)
        guidance = (
            f"The embedding is of {label(run.inputs.embedding)}; the concatenation is the latent (level 5) beside the "
            "embedding averaged to its grid, each channel brought to variance 1."
            if run.inputs.embedding
            else "The run is not guided: there is no embedding, concatenation or fusion to show."
        )
        caption = (
            f"{one} in {name} ({run.config.model}, fusion {run.config.fusion}, width {run.config.width}): the first "
            "three principal components of each layer as red, green and blue, each panel by its own, so that colours "
            f"mean nothing between panels. {feature_caption(panels)}. {guidance}"
        )
        which = [] if len(self.entrants) == 1 else [file_name(entrant.name)]
        return Drawn("-".join(["levels", *which, self._stems[one]]), feature_panels(panels), caption)

    def _overlays(self) -> Drawn:
        shown = "; ".join(f"{one} ({why})" for one, why in self.chosen.items())
        caption = (
            "Rows are images, columns the image, its true nuclei and what each run finds: missed pixels blue, added "
            f"ones orange, ignored ones grey; below, the foreground Dice of the image. Rows: {shown}."
        )
        return Drawn("overlays", overlays([self._scene(one) for one in self.chosen]), caption)

    def _scene(self, one: str) -> Scene:
        found, dice = {}, {}
        for entrant in self.entrants:
            name, run = self._run_for(entrant, one)
            (prediction,) = run.predict([one], store=self.exam.store_for(run), device=self.device)
            case = prepared_grid(prediction)
            found[entrant.name] = separate(case.probability, run.rule, case.distance)
            dice[entrant.name] = f"Dice {self.scores[name].values('dice')[one]:.3f}"
        last, why = one.rpartition("/")[2], self.chosen[one]
        short = last if len(last) <= MOST_LETTERS else f"{last[: MOST_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        return Scene(
            label=short if why == NAMED else f"{short}\n{why}",
            image=case.image,
            truth=case.instances,
            ignore=case.ignore,
            predictions=found,
            remarks=dice,
        )

    def _run_for(self, entrant: Configuration, one: str) -> tuple[str, Run]:
        """The first run of a configuration that was tested on an image."""
        return next((name, run) for name, run in entrant.runs.items() if one in self.exam.ids.get(name, ()))

    @cached_property
    def _stems(self) -> dict[str, str]:
        """Image id -> what its files are called; no two alike."""
        stems: dict[str, str] = {}
        for one in self.chosen:
            name = candidate = file_name(one)
            while candidate in stems.values():
                candidate = f"{name}-{len(stems)}"
            stems[one] = candidate
        return stems


def draw_violins(exam: TestSet, columns: list[RunScores]) -> Drawn:
    """Draw how the Dice of every configuration spreads over images."""
    values = {one.name: list(one.values("dice").values()) for one in columns}
    means = "; ".join(f"{name} {np.mean(dice):.3f} (SD {np.std(dice):.3f})" for name, dice in values.items())
    repeats = (
        " An image that several repeats predicted counts with their mean." if any(c.repeats for c in columns) else ""
    )
    caption = (
        f"Foreground Dice of each of {len(exam.all_ids)} test images of {exam.store.dataset} ({exam.protocol}): a dot "
        f"is an image, the bar the mean, and a violin ends at the lowest and the highest.{repeats} Means: {means}."
    )
    return Drawn("violins", violin(values), caption)


def _short_names(keys: list[Key]) -> list[str]:
    """The architecture of each key, and what tells it from others of that architecture; no two alike."""
    names = []
    for key in keys:
        name = key.fields.get("architecture", "encoder")
        alike = [other.fields for other in keys if other.fields.get("architecture") == key.fields.get("architecture")]
        telling = {field for field, value in key.fields.items() if any(other.get(field) != value for other in alike)}
        if name not in ARCHITECTURES:  # as onnx, which says nothing of what is in the file
            telling |= {"weights"} & key.fields.keys()
        names.append(" ".join([name, *(key.fields[field][:8] for field in sorted(telling))]))
    return [name if names.count(name) == 1 else f"{name} {key.hash[:8]}" for name, key in zip(names, keys, strict=True)]


def file_name(name: str) -> str:
    """A name without what is special to file systems or shells."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")[:100] or "unnamed"
