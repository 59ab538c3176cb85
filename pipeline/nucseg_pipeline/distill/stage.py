"""Train a small encoder to reproduce the embeddings of a large one: stores in, a student's file out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import xxhash
from accelerate import Accelerator
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
from nucseg_pipeline.distill.evaluate import Fidelity, evaluate, fit_scaler
from nucseg_pipeline.distill.folder import STUDENT, StudentFolder
from nucseg_pipeline.distill.model_card import model_card
from nucseg_pipeline.distill.trainer import StudentTrainer
from nucseg_pipeline.distill.training_sets import TeacherSet, open_teacher_sets
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.digests import configuration_digest
from nucseg_pipeline.runs.history import EpochRecord
from nucseg_pipeline.train.events import EpochDone, Event, StepDone

OnEpoch = Callable[[EpochRecord], None]
OnNotes = Callable[[Sequence[str]], None]


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
    epochs_trained: int
    """By this call; 0 where it was finished before."""
    best_epoch: int
    """Counted from 1."""
    fidelity: Mapping[str, Fidelity]
    """Data set -> how well the embeddings of its test images are imitated."""


def distill(
    config: DistillConfig,
    progress: Progress,
    on_epoch: OnEpoch = lambda record: None,
    on_notes: OnNotes = lambda notes: None,
) -> DistillResult:
    """Distill a student from the embeddings in the cache.

    No encoder is run and no native image is read: images and embeddings come from the stores. The student is trained
    on the training part in all its views, the epoch is chosen on the validation part, and the result is measured on
    the test part. A distillation that was stopped continues after its last finished epoch when it is called again, in
    the views that it was begun with; a finished one is left as it is.

    Args:
        config: what to distill from what.
        progress: called with (done, total, what).
        on_epoch: called after each epoch.
        on_notes: called once, before the first epoch, with what has to be known of split and views.

    Raises:
        ConfigError: folder, configuration or stores do not allow this distillation; nothing was changed.
        TrainingError: a loss is not finite, memory does not suffice, or a file could not be written; finished epochs
            are kept.
        nucseg_cache.CacheError: a store or its embeddings are missing, ambiguous or damaged.
    """
    accelerator = open_accelerator(config)
    folder = StudentFolder(config.folder)
    with folder.lock() if accelerator.is_main_process else nullcontext():
        state = folder.state(config)
        if state == "finished":
            folder.check_finished()
        elif state == "unfinished":
            folder.check_unedited()
        sets = open_teacher_sets(config, None if state == "new" else folder.recorded_views())
        datasets = {teacher_set.dataset: teacher_set.description for teacher_set in sets}
        if state != "new":
            folder.check_datasets(datasets)
        if accelerator.is_main_process:
            on_notes(tuple(dict.fromkeys(note for teacher_set in sets for note in teacher_set.notes)))
        if state == "finished":
            return _result(folder, epochs_trained=0)
        # nothing was written so far; every process has seen the folder as it was
        accelerator.wait_for_everyone()
        if state == "new" and accelerator.is_main_process:
            folder.start(config, datasets)
        accelerator.wait_for_everyone()
        return _distill(config, folder, sets, accelerator, progress, on_epoch)


def _distill(
    config: DistillConfig,
    folder: StudentFolder,
    sets: Sequence[TeacherSet],
    accelerator: Accelerator,
    progress: Progress,
    on_epoch: OnEpoch,
) -> DistillResult:
    def on_event(event: Event) -> None:
        if isinstance(event, StepDone):
            progress(event.step, event.steps, f"epoch {event.epoch} of {config.epochs}")
        elif isinstance(event, EpochDone):
            on_epoch(event.row)

    scaler, pattern = fit_scaler(sets)
    validation = DistillDataset(sets, "validation", scaler, with_views=False)
    trainer = StudentTrainer(config, accelerator, scaler.scale(pattern), validation)
    trainer.resume(folder)
    n_before = len(trainer.history)
    trainer.fit(DistillDataset(sets, "train", scaler, with_views=True), folder, on_event)
    if accelerator.is_main_process:
        _finish(config, folder, sets, trainer, (scaler, pattern), progress)
    accelerator.wait_for_everyone()
    return _result(folder, epochs_trained=len(trainer.history) - n_before)


def _finish(
    config: DistillConfig,
    folder: StudentFolder,
    sets: Sequence[TeacherSet],
    trainer: StudentTrainer,
    scaling: tuple[TargetScaler, Tensor],
    progress: Progress,
) -> None:
    """Measure the best network on the test part, and write the student's file, fidelity.json and card.md."""
    best = trainer.load_best(folder)
    network = _as_saved(trainer.network, scaling[0])
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    datasets = {teacher_set.dataset: teacher_set.description for teacher_set in sets}
    origin = Origin(config.size, sets[0].teacher, datasets, configuration_digest(config))
    encoder = StudentEncoder(network, origin, "", Hardware(trainer.accelerator.device, "float32"), None)
    fidelity = {teacher_set.dataset: evaluate(teacher_set, encoder, *scaling, progress) for teacher_set in sets}
    measured = {
        name: {**datasets[name], **{measure: round(value.value, 4) for measure, value in found.student.items()}}
        for name, found in fidelity.items()
    }
    content = student_bytes(network.cpu(), replace(origin, datasets=measured))
    summary = {
        "weights": str(xxhash.xxh128_hexdigest(content)),
        "best_epoch": best.epoch,
        "epochs": config.epochs,
        "datasets": {name: found.to_json() for name, found in fidelity.items()},
    }
    folder.write(STUDENT, content)
    folder.write("card.md", model_card(config, sets, fidelity, n_parameters))
    folder.write("fidelity.json", json.dumps(summary, indent=1))
    folder.write_epochs(trainer.history)  # a kill may have come between last.pt and epochs.csv
    folder.finish(best_epoch=best.epoch)


def _result(folder: StudentFolder, *, epochs_trained: int) -> DistillResult:
    fidelity = folder.fidelity()
    return DistillResult(
        folder=folder.path,
        file=folder.file(STUDENT),
        digest=fidelity["weights"],
        n_bytes=folder.file(STUDENT).stat().st_size,
        epochs=fidelity["epochs"],
        epochs_trained=epochs_trained,
        best_epoch=fidelity["best_epoch"],
        fidelity={name: Fidelity.from_json(content) for name, content in fidelity["datasets"].items()},
    )


def _as_saved(network: StudentNetwork, scaler: TargetScaler) -> StudentNetwork:
    """The network as it is saved: folded, returning embeddings that are not standardised, with float16 weights."""
    folded = network.cpu().folded(scaler.spread, scaler.means)
    with torch.no_grad():
        for name, parameter in folded.named_parameters():
            parameter.copy_(parameter.half())
            if not parameter.isfinite().all():
                raise TrainingError(
                    f"The weights {name} went beyond what half precision holds, {LARGEST_HALF:,}. Distill in another "
                    "folder (--out) with a lower --learning-rate."
                )
    return folded
