"""How well a finished student imitates its teacher on images that neither weights nor epoch were chosen by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nucseg.encoders import Encoder
from nucseg.metrics.statistics import Interval
from nucseg.replay import position_pattern
from nucseg.replay.fidelity import Agreement, agreement, channel_means, measured
from nucseg_pipeline.distill.dataset import TargetScaler, content, inside_of
from nucseg_pipeline.distill.training_sets import Course
from nucseg_pipeline.loading.batch import embeddings_of
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset

PATTERN = "mean embedding at each place"
"""What the student is held against: what can be known of an embedding without looking at the image."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Fidelity:
    """Of one data set's test part."""

    n_images: int
    student: dict[str, Interval]
    """error, cosine and centred_cosine of `nucseg.replay.fidelity`, over the images."""
    pattern: dict[str, Interval]
    """The same of the mean embedding at each place over the training images."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fidelity:
        """From what `to_json` returned."""
        student, pattern = (
            {name: Interval(**interval) for name, interval in content[who].items()} for who in ("student", PATTERN)
        )
        return cls(content["n_images"], student, pattern)

    def to_json(self) -> dict[str, Any]:
        """As fidelity.json holds it."""
        told = {"student": self.student, PATTERN: self.pattern}
        return {"n_images": self.n_images} | {
            who: {name: asdict(interval) for name, interval in values.items()} for who, values in told.items()
        }


def standard_of(courses: Sequence[Course]) -> tuple[TargetScaler, Tensor]:
    """The standard of the training images as they are, all courses together, and their pattern (256, 64, 64)."""
    rows = [EmbeddingDataset(course.store, course.embeddings, course.parts.train) for course in courses]
    pattern = position_pattern(embedded for one in rows for embedded, _ in _read(one))
    means = channel_means(pattern).float()
    squares, n_cells = 0.0, 0.0
    for one in rows:
        for embedded, inside in _read(one):
            away = (embedded - means[:, None, None]).square().sum(dim=1, keepdim=True)
            squares += float((away * inside).sum(dtype=torch.float64))
            n_cells += float(inside.sum())
    return TargetScaler(means, (squares / (n_cells * len(means))) ** 0.5), pattern


def examine(course: Course, encoder: Encoder, standard: TargetScaler, pattern: Tensor, progress: Progress) -> Fidelity:
    """Embed the test images of a data set with the student, and compare with the teacher's embeddings."""
    rows = EmbeddingDataset(course.store, course.embeddings, course.parts.test)
    of_student: dict[str, Agreement] = {}
    of_pattern: dict[str, Agreement] = {}
    for share in batches(range(len(rows)), READ_ROWS):
        read = rows.__getitems__(share)
        returned = torch.from_numpy(encoder.encode([content(row) for row in read]))
        for row, true, own in zip(read, embeddings_of(read).float(), returned, strict=True):
            inside, one = inside_of(row), row.sample.id
            of_student[one] = agreement(true, own, standard.means, inside)
            of_pattern[one] = agreement(true, pattern, standard.means, inside)
        progress(len(of_student), len(rows), f"measuring {course.dataset}")
    groups = {one: course.store.info(course.store.row_of(one)).group for one in of_student}
    return Fidelity(len(of_student), measured([of_student], groups), measured([of_pattern], groups))


def _read(rows: EmbeddingDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings (B, 256, 64, 64) float32 and inside (B, 1, 64, 64), some at a time."""
    for share in batches(range(len(rows)), READ_ROWS):
        read = rows.__getitems__(share)
        yield embeddings_of(read).float(), torch.stack([inside_of(row)[None].float() for row in read])
