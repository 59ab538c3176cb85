"""Lessons: an image as a student is shown it, and what its teacher made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.data import content_size
from nucseg.encoders import EMBEDDING_SHAPE
from nucseg.encoders.student.encoder import padded
from nucseg.encoders.student.sizes import GRID, STUDENT_PX
from nucseg.replay import d4
from nucseg.views.crop import CROP
from nucseg.views.registry import D4_VIEWS
from nucseg_pipeline.distill.training_sets import Course
from nucseg_pipeline.loading.batch import Row, embeddings_of
from nucseg_pipeline.loading.dataset import EmbeddingDataset


@dataclass(frozen=True, eq=False)
class TargetScaler:
    """What targets are brought to: mean 0 in each channel over all cells, mean square 1 over those inside."""

    means: Tensor
    """(256,) float32, over all cells of the training images as they are, their padding too."""
    spread: float
    """Root of the mean squared distance from the means."""

    def of(self, embeddings: Tensor) -> Tensor:
        """Bring (..., 256, 64, 64) of any type to the standard, float32; a batch lies channels last in memory."""
        layout = torch.channels_last if embeddings.ndim == 4 else torch.contiguous_format
        standard = torch.empty(embeddings.shape, memory_format=layout)
        offset = (-self.means / self.spread)[:, None, None]
        return torch.add(offset, embeddings, alpha=1 / self.spread, out=standard)  # in one pass: it is large


@dataclass(frozen=True, eq=False)
class Shown:
    """Some lessons."""

    images: Tensor
    """(B, 3, 256, 256) float32, normalised, zero in the padding."""
    targets: Tensor
    """(B, 256, 64, 64) float32, by the standard; channels last in memory, as the network returns its own."""
    inside: Tensor
    """(B, 1, 64, 64) float32, 1 where the cell lies inside the image."""


class DistillDataset:
    """Every view of every image of one part of all courses, or the images as they are alone."""

    def __init__(self, courses: Sequence[Course], part: str, standard: TargetScaler, *, with_views: bool) -> None:
        """Open the rows of a part: train, validation or test."""
        self._standard, self._courses = standard, courses
        ids = [getattr(course.parts, part) for course in courses]
        self._rows = [
            EmbeddingDataset(course.store, course.embeddings, one, views=course.views if with_views else {})
            for course, one in zip(courses, ids, strict=True)
        ]
        self._of = [
            (number, place, view)
            for number, (course, one) in enumerate(zip(courses, ids, strict=True))
            for place, view in course.shown(one)
            if with_views or view not in course.views
        ]

    def __len__(self) -> int:
        return len(self._of)

    @property
    def names(self) -> list[str]:
        """One name a lesson: data set, view, id."""
        datasets = [course.dataset for course in self._courses]
        return [f"{datasets[number]}/{view}/{self._rows[number].ids[place]}" for number, place, view in self._of]

    def read(self, numbers: Sequence[int]) -> Shown:
        """Some lessons, in their order."""
        asked = [self._of[number] for number in numbers]
        rows: dict[int, Row] = {}
        targets = torch.empty((len(asked), *EMBEDDING_SHAPE), memory_format=torch.channels_last)
        for course in sorted({number for number, _, _ in asked}):  # each may be stored in a format of its own
            mine = [i for i, (number, _, _) in enumerate(asked) if number == course]
            found = self._rows[course].read([asked[i][1] for i in mine], [asked[i][2] for i in mine])
            rows |= zip(mine, found, strict=True)
            targets[mine] = self._standard.of(embeddings_of(found))
        images, inside = self._seen([rows[i] for i in range(len(asked))], asked)
        return Shown(images, targets, inside)

    def _seen(self, rows: Sequence[Row], asked: Sequence[tuple[int, int, str]]) -> tuple[Tensor, Tensor]:
        """The images of rows and what of them counts; what is an orientation of the image is turned here."""
        contents = [self._content(row, number, view) for row, (number, _, view) in zip(rows, asked, strict=True)]
        images = padded([row.sample.image[:h, :w] for row, (h, w) in zip(rows, contents, strict=True)])
        inside = torch.stack([_inside(h, w) for h, w in contents])
        for i, (_, _, view) in enumerate(asked):
            if view in D4_VIEWS:
                element = D4_VIEWS.index(view) + 1
                images[i], inside[i] = (d4.apply(x[i], element).clone() for x in (images, inside))
        return images, inside

    def _content(self, row: Row, number: int, view: str) -> tuple[int, int]:
        """Height and width of what is no padding in the image of a row."""
        views = self._courses[number].views
        if view in views and CROP in views[view].described:
            return STUDENT_PX, STUDENT_PX  # crops are square
        return content_size(row.sample.size, STUDENT_PX)


def _inside(height: int, width: int) -> Tensor:
    """(1, 64, 64) float32: the cells of which at least half lies inside the image, whose longer side is 256 px."""
    rows, columns = content_size((height, width), GRID)
    inside = torch.zeros(1, GRID, GRID)
    inside[:, :rows, :columns] = 1
    return inside


def content(row: Row) -> NDArray[np.uint8]:
    """The prepared image of a row without its padding, (h, w, 3): what an encoder makes the row's embedding of."""
    height, width = content_size(row.sample.size, STUDENT_PX)
    return row.sample.image[:height, :width]


def inside_of(row: Row) -> Tensor:
    """(64, 64) bool, the cells of a row's image as it is that count."""
    return _inside(*content_size(row.sample.size, STUDENT_PX))[0].bool()
