"""Teach a small encoder the embeddings of a large one: stores in, a student's file out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from nucseg.encoders.device import Hardware
from nucseg.encoders.student.encoder import StudentEncoder
from nucseg.encoders.student.file import student_bytes
from nucseg.encoders.student.metadata import Origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.errors import TrainingError
from nucseg_cache.formats import LARGEST_HALF
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.distill.dataset import DistillDataset, TargetScaler
from nucseg_pipeline.distill.evaluate import Fidelity, examine, standard_of
from nucseg_pipeline.distill.folder import STUDENT, StudentFolder, configuration_digest, fingerprint
from nucseg_pipeline.distill.model_card import card
from nucseg_pipeline.distill.trainer import EpochTold, StudentTrainer
from nucseg_pipeline.distill.training_sets import Course, open_courses
from nucseg_pipeline.files.atomic import write_whole
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.runs.checkpoint import load_checkpoint, save_checkpoint

Progress = Callable[[int, int, str], None]
Told = Callable[[EpochTold], None]


@dataclass(frozen=True)
class DistillResult:
    """What a distillation leaves behind."""

    folder: Path
    file: Path
    """The student."""
    digest: str
    """xxh128 of the file, hexadecimal."""
    n_bytes: int
    epochs: int
    """Of the finished distillation."""
    epochs_learned: int
    """By this call; 0 where it was finished before."""
    best_epoch: int
    """Counted from 1."""
    fidelity: Mapping[str, Fidelity]
    """Data set -> how well its test images are imitated."""


def distill(
    config: DistillConfig,
    progress: Progress,
    told: Told = lambda row: None,
    noted: Callable[[Sequence[str]], None] = lambda notes: None,
) -> DistillResult:
    """Distill a student from the embeddings in the cache.

    No encoder is run and no native image read: images and embeddings come from the stores. Weights are learned on
    the training part in all its views, the epoch is chosen on the validation part, and the test part measures what
    came of it. A distillation that was stopped goes on from its last finished epoch when it is asked for again, in the
    views that it was begun with; a finished one is left as it is.

    Args:
        config: what to distill from what.
        progress: called with (done, total, what).
        told: called after each epoch.
        noted: called once, before the first epoch, with what has to be known of split and views.

    Raises:
        ConfigError: a folder, configuration or store with which this cannot be; nothing was changed.
        TrainingError: the error left the finite numbers, or a file could not be written; what was finished is kept.
        nucseg_cache.CacheError: a store or its embeddings are missing, ambiguous or damaged.
    """
    accelerator = open_accelerator(config)
    is_main = accelerator.is_main_process
    folder = StudentFolder(config.folder)
    with folder.held() if is_main else nullcontext():
        courses = open_courses(config, folder.recorded_views())
        learned = {course.dataset: course.learned for course in courses}
        if is_main:
            noted(tuple(dict.fromkeys(note for course in courses for note in course.notes)))
            folder.start(config, learned)
        accelerator.wait_for_everyone()
        finished = folder.finished()
        if finished is not None:
            return _result(folder, finished, epochs_learned=0)
        inputs = fingerprint(config, learned)
        standard, pattern = standard_of(courses)
        pupil = StudentTrainer(config, accelerator, standard.of(pattern))
        if folder.file("last.pt").exists():
            pupil.restore(load_checkpoint(folder.file("last.pt"), inputs, "--out"))
        n_before = len(pupil.history)
        if n_before < config.epochs:
            lessons = DistillDataset(courses, "train", standard, with_views=True)
            validation = DistillDataset(courses, "validation", standard, with_views=False)
        while len(pupil.history) < config.epochs:
            what = f"epoch {len(pupil.history) + 1} of {config.epochs}"
            row = pupil.learn(lessons, validation, _Steps(what, progress) if is_main else _silent)
            if is_main:
                _keep(pupil, folder, inputs)
                told(row)
        accelerator.wait_for_everyone()
        best = load_checkpoint(folder.file("best.pt"), inputs, "--out")
        pupil.network.load_state_dict(best["network"])
        fidelity = _finish(config, folder, courses, pupil, (standard, pattern), progress if is_main else _silent)
        return _result(folder, fidelity, epochs_learned=len(pupil.history) - n_before)


@dataclass(frozen=True)
class _Steps:
    """Tells the steps of an epoch."""

    what: str
    progress: Progress

    def __call__(self, step: int, steps: int, error: float) -> None:
        self.progress(step, steps, self.what)


def _silent(*told: object) -> None:
    """The other processes tell nothing."""


def _keep(pupil: StudentTrainer, folder: StudentFolder, inputs: str) -> None:
    """Bring the epoch to the disk: first what last.pt speaks of, so that a kill in between costs the epoch only."""
    if pupil.best is pupil.history[-1]:
        best = {"network": pupil.state()["network"], "epoch": pupil.best.epoch}
        save_checkpoint(folder.file("best.pt"), best, inputs)
    save_checkpoint(folder.file("last.pt"), pupil.state(), inputs)
    folder.write_epochs(pupil.history)


def _finish(
    config: DistillConfig,
    folder: StudentFolder,
    courses: Sequence[Course],
    pupil: StudentTrainer,
    known: tuple[TargetScaler, Tensor],
    progress: Progress,
) -> dict[str, Any]:
    """Make the file of the network, measure it, and write both with the card; returns what fidelity.json holds."""
    network = _as_in_a_file(pupil.network, known[0])
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    learned = {course.dataset: course.learned for course in courses}
    origin = Origin(config.size, courses[0].teacher, learned, configuration_digest(config))
    encoder = StudentEncoder(network, origin, "", Hardware(pupil.accelerator.device, "float32"), None)
    found = {course.dataset: examine(course, encoder, *known, progress) for course in courses}
    measured = {
        name: {**learned[name], **{measure: round(one.student[measure].value, 4) for measure in one.student}}
        for name, one in found.items()
    }
    content = student_bytes(network.cpu(), replace(origin, datasets=measured))
    fidelity = {
        "weights": str(xxhash.xxh128_hexdigest(content)),
        "best_epoch": pupil.best.epoch,
        "epochs": config.epochs,
        "datasets": {name: one.to_json() for name, one in found.items()},
    }
    if pupil.accelerator.is_main_process:
        write_whole(folder.file(STUDENT), content)
        write_whole(folder.file("card.md"), card(config, courses, found, n_parameters).encode())
        write_whole(folder.file("fidelity.json"), json.dumps(fidelity, indent=1).encode())
    return fidelity


def _result(folder: StudentFolder, fidelity: Mapping[str, Any], *, epochs_learned: int) -> DistillResult:
    return DistillResult(
        folder=folder.path,
        file=folder.file(STUDENT),
        digest=fidelity["weights"],
        n_bytes=folder.file(STUDENT).stat().st_size,
        epochs=fidelity["epochs"],
        epochs_learned=epochs_learned,
        best_epoch=fidelity["best_epoch"],
        fidelity={name: Fidelity.from_json(told) for name, told in fidelity["datasets"].items()},
    )


def _as_in_a_file(network: StudentNetwork, standard: TargetScaler) -> StudentNetwork:
    """The network as it will be read: folded, returning embeddings and not what they were brought to, in float16."""
    made = network.cpu().folded(standard.spread, standard.means)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(parameter.half())
            if not parameter.isfinite().all():
                raise TrainingError(
                    f"The weights {name} went beyond what half precision holds, {LARGEST_HALF:,}. Distill in another "
                    "folder (--out) with a lower --learning-rate."
                )
    return made
