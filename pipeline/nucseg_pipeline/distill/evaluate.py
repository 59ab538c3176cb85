"""How well a finished student imitates its teacher on images that chose neither its weights nor its epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nucseg.encoders import Encoder
from nucseg.metrics.statistics import Interval
from nucseg.replay import position_pattern
from nucseg.replay.fidelity import Agreement, agreement, channel_means, measured
from nucseg_pipeline.distill.dataset import TargetScaler, cells_inside, content
from nucseg_pipeline.distill.training_sets import TeacherSet
from nucseg_pipeline.loading.batch import stack_embeddings
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.progress import Progress

PATTERN = "mean embedding at each place"
"""The baseline of the student: the best guess without looking at the image."""


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
        return {"n_images": self.n_images} | {
            who: {name: asdict(interval) for name, interval in values.items()}
            for who, values in (("student", self.student), (PATTERN, self.pattern))
        }


def fit_scaler(sets: Sequence[TeacherSet]) -> tuple[TargetScaler, Tensor]:
    """The scaler of the training images as they are, of all data sets, and their mean embedding (256, 64, 64)."""
    datasets = [EmbeddingDataset(teacher.store, teacher.embeddings, teacher.parts.train) for teacher in sets]
    pattern = position_pattern(embeddings for rows in datasets for embeddings, _ in _read(rows))
    means = channel_means(pattern).float()
    squares, n_cells = 0.0, 0.0
    for rows in datasets:
        for embeddings, inside in _read(rows):
            distance = (embeddings - means[:, None, None]).square().sum(dim=1, keepdim=True)
            squares += float((distance * inside).sum(dtype=torch.float64))
            n_cells += float(inside.sum())
    return TargetScaler(means, (squares / (n_cells * len(means))) ** 0.5), pattern


def evaluate(
    teacher_set: TeacherSet, encoder: Encoder, scaler: TargetScaler, pattern: Tensor, progress: Progress
) -> Fidelity:
    """Embed the test images of a data set with the student, and compare with the teacher's embeddings."""
    store, rows = teacher_set.store, EmbeddingDataset(teacher_set.store, teacher_set.embeddings, teacher_set.parts.test)
    of_student: dict[str, Agreement] = {}
    of_pattern: dict[str, Agreement] = {}
    for indices in batches(range(len(rows)), READ_ROWS):
        read = rows.__getitems__(indices)
        returned = torch.from_numpy(encoder.encode([content(row) for row in read]))
        for row, true, own in zip(read, stack_embeddings(read).float(), returned, strict=True):
            inside, sample_id = cells_inside(row), row.sample.id
            of_student[sample_id] = agreement(true, own, scaler.means, inside)
            of_pattern[sample_id] = agreement(true, pattern, scaler.means, inside)
        progress(len(of_student), len(rows), f"evaluating on {teacher_set.dataset}")
    groups = {sample_id: store.info(store.row_of(sample_id)).group for sample_id in of_student}
    return Fidelity(len(of_student), measured([of_student], groups), measured([of_pattern], groups))


def _read(rows: EmbeddingDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings (B, 256, 64, 64) float32 and cells inside (B, 1, 64, 64), some images at a time."""
    for indices in batches(range(len(rows)), READ_ROWS):
        read = rows.__getitems__(indices)
        yield stack_embeddings(read).float(), torch.stack([cells_inside(row)[None].float() for row in read])
