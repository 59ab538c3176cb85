"""Stage two: a store in, a run out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from nucseg.data.splits import Split
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule, choose_rule
from nucseg.replay import Geometry
from nucseg_cache import Embeddings, Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.loading.batches import spread_evenly
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.modelling.inference import predict
from nucseg_pipeline.modelling.model import check_network
from nucseg_pipeline.runs.checkpoint import load_checkpoint, save_checkpoint
from nucseg_pipeline.runs.folder import RunFolder, State
from nucseg_pipeline.runs.provenance import RunProvenance, record_provenance
from nucseg_pipeline.runs.selection import find_key, make_split, mixing_images, open_embeddings, open_views, used_ids
from nucseg_pipeline.train.augmentation import Augmentation
from nucseg_pipeline.train.events import EpochDone, Progress, Started, StepDone
from nucseg_pipeline.train.replay import open_replay
from nucseg_pipeline.train.tensorboard import check_log, logged
from nucseg_pipeline.train.trainer import Trainer


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


def train(config: TrainConfig, progress: Progress = lambda event: None) -> TrainResult:
    """Train the network of a configuration on the embeddings in the cache and write the run's folder.

    No encoder is loaded, and no image of the test part is read. Checkpoint, network and rule are chosen on the
    validation part. A run that was killed goes on from its last finished epoch with `resume` and ends, on the CPU
    with equally many threads, with the very same weights; a finished one is left as it is.

    Raises:
        ConfigError: a folder, configuration or store with which this training cannot be; nothing was changed.
        TrainingError: the loss left the finite numbers, or a file could not be written; what was finished is kept.
        nucseg_cache.CacheError: the store or its embeddings are missing, ambiguous or damaged.
    """
    check_log(config.log)
    check_network(config)  # before what takes long, and before anything else is said to be missing
    accelerator = open_accelerator(config)
    is_main = accelerator.is_main_process
    store = open_store(config.cache, config.dataset)
    folder = RunFolder(config.folder)
    with folder.held() if is_main else nullcontext(), logged(progress, config.log) as tell:
        state = folder.state(config)
        if state == "finished":
            folder.check_finished()
            return _result(folder, epochs_trained=0)
        if state == "unfinished":
            folder.check_unedited()
        recorded = None if state == "new" else folder.inputs()
        parts = make_split(store, config) if recorded is None else folder.split()
        key = find_key(store, config)
        geometry = Geometry.named(config.augmentation)
        embeddings = open_embeddings(store, key, used_ids(parts))
        views = open_views(store, key, config, parts.train, () if recorded is None else tuple(recorded.views))
        exact = mixing_images(store, key, config, parts.train) if recorded is None else recorded.learned_from
        now = record_provenance(store, key, parts, views, exact, config)
        inputs = _checked_inputs(folder, recorded, now, parts)
        others = inputs.made_by_others(now)
        learner = Trainer(config, accelerator)
        distances = config.instance_head == "distance"
        rows = EmbeddingDataset(
            store, embeddings, parts.train, views=views, preload=config.preload, distances=distances,
            device=accelerator.device,
        )  # fmt: skip
        validation = EmbeddingDataset(
            store, embeddings, parts.validation, preload=config.preload, device=accelerator.device
        )
        watched = _watched(store, embeddings, validation, config, accelerator.device)

        # nothing was written so far, so what cannot be trained leaves no folder behind
        accelerator.wait_for_everyone()
        if is_main:
            _begin(folder, state, config, parts, inputs)
            _remember(folder, others)
        replay = open_replay(folder, config, store, key, rows, accelerator)
        augmentation = Augmentation(geometry, replay, tuple(views))
        _restore(learner, folder, inputs)
        epochs_before = len(learner.history)
        if is_main:
            note = store.recorded(key).get("note", "") if key else ""
            tell(_started(learner, folder, parts, (note, _shown(augmentation), _made_by(others))))

        while len(learner.history) < config.epochs:
            report = partial(_report_step, tell, len(learner.history) + 1) if is_main else _silent
            row = learner.learn(rows, watched, augmentation, report)
            if is_main:
                _keep(learner, folder, inputs)
                tell(EpochDone(row, is_best=learner.best is row))

        if is_main:
            _finish(learner, folder, validation)
        accelerator.wait_for_everyone()
        return _result(folder, epochs_trained=len(learner.history) - epochs_before)


def _checked_inputs(
    folder: RunFolder, recorded: RunProvenance | None, now: RunProvenance, parts: Split
) -> RunProvenance:
    """The inputs a run goes on with: today's, or the recorded ones if today's are still the same."""
    if recorded is None:
        return now
    changes = recorded.changes(now, (*parts.train, *parts.validation))
    if changes:
        raise ConfigError(
            "\n  ".join([f"What the run in {folder.path} was trained on has changed:", *changes])
            + "\nPut it back as it was, or train anew in another folder (--run)."
        )
    return recorded


def _begin(folder: RunFolder, state: State, config: TrainConfig, parts: Split, inputs: RunProvenance) -> None:
    if state == "new":
        folder.start(config, parts, inputs)
    elif config.epochs != folder.config().epochs:
        # the status first: a kill in between must not leave a longer run that is called finished
        folder.write_status("training")
        folder.write_config(config)


def _remember(folder: RunFolder, others: list[str]) -> None:
    """Write down that the run goes on by other versions or code than it was started with."""
    before = folder.changed()
    if not set(others) <= set(before):
        folder.write_status("training", changed=[*before, *(line for line in others if line not in before)])


def _made_by(others: list[str]) -> str:
    if not others:
        return ""
    return (
        f"The run was started by others: {'; '.join(others)}. It may end with other weights than an undisturbed "
        "one, and its report says so."
    )


def _watched(
    store: Store, embeddings: Embeddings | None, validation: EmbeddingDataset, config: TrainConfig, device: torch.device
) -> EmbeddingDataset:
    """The validation rows that epochs are compared on, spread evenly over the part."""
    wanted = config.validation_images
    if wanted is None or wanted >= len(validation):
        return validation
    return EmbeddingDataset(
        store, embeddings, spread_evenly(validation.ids, wanted), preload=config.preload, device=device
    )


def _restore(learner: Trainer, folder: RunFolder, inputs: RunProvenance) -> None:
    if folder.file("last.pt").exists():
        learner.restore(load_checkpoint(folder.file("last.pt"), inputs.fingerprint))


def _keep(learner: Trainer, folder: RunFolder, inputs: RunProvenance) -> None:
    """Bring the epoch to the disk: first what last.pt speaks of, so that a kill in between costs the epoch only."""
    row = learner.history[-1]
    if learner.best is row:
        network = {"model": learner.state()["model"], "epoch": row.epoch, "validation_dice": row.validation_dice}
        save_checkpoint(folder.file("best.pt"), network, inputs.fingerprint)
    save_checkpoint(folder.file("last.pt"), learner.state(), inputs.fingerprint)
    folder.write_epochs([asdict(row) for row in learner.history])


def _finish(learner: Trainer, folder: RunFolder, validation: EmbeddingDataset) -> None:
    """Choose how probabilities become nuclei, with the best network, on the validation part."""
    best = load_checkpoint(folder.file("best.pt"), folder.inputs().fingerprint)
    learner.model.load_state_dict(best["model"])
    predictions = list(predict(learner.model, validation, device=learner.accelerator.device))
    folder.write_rule(
        choose_rule(
            [one.probability[one.content] for one in predictions],
            [one.sample.instances[one.content] for one in predictions],
            [one.sample.ignore[one.content] for one in predictions],
            [one.distance[one.content] for one in predictions if one.distance is not None],
        )
    )
    folder.write_epochs([asdict(row) for row in learner.history])
    folder.write_status(
        "finished",
        best_epoch=best["epoch"],
        validation_dice=best["validation_dice"],
        files=folder.file_digests(),
    )


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


def _shown(augmentation: Augmentation) -> str:
    """What is shown beside the images as they are, where that is more than orientations; empty where it is not."""
    if augmentation.is_exact or not augmentation.views:
        return ""
    return f"Every epoch shows each image as it is or as one of {', '.join(augmentation.views)}."


def _started(learner: Trainer, folder: RunFolder, parts: Split, notes: tuple[str, ...]) -> Started:
    return Started(
        folder=folder.path,
        device=str(learner.accelerator.device),
        n_parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        n_train=len(parts.train),
        n_validation=len(parts.validation),
        n_test=len(parts.test),
        epochs_done=len(learner.history),
        epochs=learner.config.epochs,
        notes=(*parts.notes, *filter(None, notes)),
    )


def _report_step(progress: Progress, epoch: int, step: int, steps: int, loss: float) -> None:
    progress(StepDone(epoch, step, steps, loss))


def _silent(step: int, steps: int, loss: float) -> None:
    """The other processes report nothing."""
