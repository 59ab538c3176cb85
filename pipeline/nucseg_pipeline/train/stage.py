"""Stage two: a store in, a run out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule, choose_rule
from nucseg.photometric import PhotometricRecipe
from nucseg.replay import Geometry
from nucseg_cache import Embeddings
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batches import spread_evenly
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.loading.inspection import check_counted
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.modelling.inference import predict
from nucseg_pipeline.modelling.model import check_network
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.provenance import RunProvenance, record_provenance
from nucseg_pipeline.runs.selection import Selection, used_ids
from nucseg_pipeline.runs.training_folder import State
from nucseg_pipeline.train.augmentation import Augmentation, AugmentedDataset
from nucseg_pipeline.train.events import OnEvent, Started
from nucseg_pipeline.train.replay import open_replay
from nucseg_pipeline.train.segmentation import SegmentationTrainer
from nucseg_pipeline.train.tensorboard import check_log, logged


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind."""

    folder: Path
    epochs: int
    """Epochs of the finished run."""
    epochs_trained: int
    """Epochs trained by this call; 0 where the run was finished before."""
    best_epoch: int
    """Counted from 1."""
    validation_dice: float
    """Of the best epoch."""
    rule: InstanceRule


def train(config: TrainConfig, on_event: OnEvent = lambda event: None) -> TrainResult:
    """Train the network of a configuration on the embeddings in the cache and write the run's folder.

    No encoder is loaded, and no image of the test part is read. Checkpoint, network and rule are chosen on the
    validation part. With `resume`, a run that was killed continues after its last finished epoch and ends, on the CPU
    with the same number of threads, with identical weights; a finished one is left as it is.

    Raises:
        ConfigError: folder, configuration or store do not allow this training; nothing was changed.
        DataError: every pixel of the training or the validation part is ignored; nothing was changed.
        TrainingError: a loss is not finite, memory does not suffice, or a file could not be written; finished epochs
            are kept.
        nucseg_cache.CacheError: the store or its embeddings are missing, ambiguous or damaged.
    """
    check_log(config.log)
    check_network(config)  # before anything that takes long
    accelerator = open_accelerator(config)
    folder = RunFolder(config.folder)
    with folder.lock() if accelerator.is_main_process else nullcontext(), logged(on_event, config.log) as on_event:
        state = folder.state(config)
        if state == "finished":
            folder.check_finished()
            return _result(folder, epochs_trained=0)
        return _train(_Inputs.open(config, folder, state), folder, state, accelerator, on_event)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What a run is made from."""

    selection: Selection
    embeddings: Embeddings | None
    views: Mapping[str, Embeddings]
    provenance: RunProvenance
    """As recorded when the run was started."""
    changed_software: list[str]
    """Versions and code that have changed since."""

    @classmethod
    def open(cls, config: TrainConfig, folder: RunFolder, state: State) -> _Inputs:
        """Open everything; ConfigError where it is not what a resumed run was started with."""
        if state == "unfinished":
            folder.check_unedited()
        recorded = None if state == "new" else folder.inputs()
        selection = Selection.open(config, None if recorded is None else folder.split())
        parts = selection.split
        embeddings = selection.embeddings(used_ids(parts))
        views = selection.views(parts.train, () if recorded is None else tuple(recorded.views))
        learned_from = selection.mixing_images(parts.train) if recorded is None else recorded.learned_from
        now = record_provenance(selection, views, learned_from)
        if recorded is None:
            return cls(selection, embeddings, views, now, [])
        changes = recorded.changes(now, (*parts.train, *parts.validation))
        if changes:
            raise ConfigError(
                "\n  ".join([f"What the run in {folder.path} was trained on has changed:", *changes])
                + "\nPut it back as it was, or train again in another folder (--run)."
            )
        return cls(selection, embeddings, views, recorded, recorded.changed_software(now))

    def training_rows(self, device: torch.device) -> EmbeddingDataset:
        """The rows of the training part, with their views."""
        config = self.selection.config
        return EmbeddingDataset(
            self.selection.store, self.embeddings, self.selection.split.train, views=self.views,
            preload=config.preload, distances=config.instance_head == "distance", device=device,
        )  # fmt: skip

    def validation_rows(self, device: torch.device, most: int | None = None) -> EmbeddingDataset:
        """The rows of the validation part, or that many of them, spread evenly over the part."""
        ids = self.selection.split.validation
        return EmbeddingDataset(
            self.selection.store, self.embeddings, ids if most is None else spread_evenly(ids, most),
            preload=self.selection.config.preload, device=device,
        )  # fmt: skip


def _train(
    inputs: _Inputs, folder: RunFolder, state: State, accelerator: Accelerator, on_event: OnEvent
) -> TrainResult:
    config, device = inputs.selection.config, accelerator.device
    geometry = Geometry.named(config.augmentation)  # an invalid one must leave no folder behind
    photometric = PhotometricRecipe.named(config.photometric)
    rows, validation = inputs.training_rows(device), inputs.validation_rows(device)
    n_compared = config.validation_images or len(validation)
    compared = validation if n_compared >= len(validation) else inputs.validation_rows(device, n_compared)
    check_counted(inputs.selection.store, rows.ids, "training images")
    check_counted(inputs.selection.store, compared.ids, "validation images")
    trainer = SegmentationTrainer(config, accelerator, compared)

    # nothing was written so far, so what cannot be trained leaves no folder behind
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _begin(folder, state, inputs)
    accelerator.wait_for_everyone()
    replay = open_replay(folder, inputs.selection, rows, accelerator)
    augmentation = Augmentation(geometry, replay, tuple(inputs.views), photometric)
    trainer.resume(folder)
    n_before = len(trainer.history)
    if accelerator.is_main_process:
        on_event(_started(trainer, folder, inputs, augmentation))

    trainer.fit(AugmentedDataset(rows, augmentation, config.seed), folder, on_event)
    if accelerator.is_main_process:
        _finish(trainer, folder, validation)
    accelerator.wait_for_everyone()
    return _result(folder, epochs_trained=len(trainer.history) - n_before)


def _begin(folder: RunFolder, state: State, inputs: _Inputs) -> None:
    """Set the folder up, or bring it to what the resumed run is."""
    config = inputs.selection.config
    if state == "new":
        folder.start(config, inputs.selection.split, inputs.provenance)
    elif config.epochs != folder.config().epochs:
        folder.lengthen(config)
    folder.record_changes(inputs.changed_software)


def _finish(trainer: SegmentationTrainer, folder: RunFolder, validation: EmbeddingDataset) -> None:
    """Choose how probabilities become nuclei, with the best network, on the validation part."""
    best = trainer.load_best(folder)
    predictions = [
        prediction
        for prediction in predict(trainer.segmentation_model, validation, device=trainer.accelerator.device)
        if not prediction.sample.ignore.all()
    ]
    folder.write_rule(
        choose_rule(
            [prediction.probability[prediction.content] for prediction in predictions],
            [prediction.sample.instances[prediction.content] for prediction in predictions],
            [prediction.sample.ignore[prediction.content] for prediction in predictions],
            [prediction.distance[prediction.content] for prediction in predictions if prediction.distance is not None],
        )
    )
    folder.write_epochs(trainer.history)  # a kill may have come between last.pt and epochs.csv
    folder.finish(best_epoch=best.epoch, validation_dice=best.validation_dice, changed=folder.changed())


def _result(folder: RunFolder, *, epochs_trained: int) -> TrainResult:
    status = folder.status()
    return TrainResult(
        folder=folder.path,
        epochs=folder.config().epochs,
        epochs_trained=epochs_trained,
        best_epoch=status["best_epoch"],
        validation_dice=status["validation_dice"],
        rule=folder.rule(),
    )


def _started(trainer: SegmentationTrainer, folder: RunFolder, inputs: _Inputs, augmentation: Augmentation) -> Started:
    parts = inputs.selection.split
    return Started(
        folder=folder.path,
        device=str(trainer.accelerator.device),
        n_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        n_train=len(parts.train),
        n_validation=len(parts.validation),
        n_test=len(parts.test),
        epochs_done=len(trainer.history),
        epochs=trainer.epochs,
        notes=(*parts.notes, *_notes(inputs, augmentation)),
    )


def _notes(inputs: _Inputs, augmentation: Augmentation) -> list[str]:
    """What a reader has to know of the embeddings, of the views, and of a resumed run."""
    store, key = inputs.selection.store, inputs.selection.key
    notes = [store.recorded(key).get("note", "") if key else ""]
    if augmentation.views and not augmentation.is_exact:
        notes.append(f"Every epoch uses each image as it is or as one of {', '.join(augmentation.views)}.")
    if inputs.changed_software:
        notes.append(
            f"The run was started with other software: {'; '.join(inputs.changed_software)}. It may end with other "
            "weights than an undisturbed one, and its report says so."
        )
    return [note for note in notes if note]
