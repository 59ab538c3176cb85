"""A network while it is trained: it can be stopped after any epoch, and resumes as if it had not been stopped."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nucseg.adaptive_batch import lacks_memory, reason
from nucseg.errors import ConfigError, TrainingError
from nucseg_pipeline.config import DistillConfig, TrainConfig
from nucseg_pipeline.loading.batches import batches, epoch_order
from nucseg_pipeline.loading.prefetch import prefetch, prefetch_depth
from nucseg_pipeline.modelling.device import broadcast_buffers, reduce_sum, shard_options
from nucseg_pipeline.runs.history import EpochRecord, best_epoch
from nucseg_pipeline.runs.training_folder import TrainingFolder
from nucseg_pipeline.train.events import EpochDone, OnEvent, StepDone

Item = TypeVar("Item")


class TrainingSet(Protocol[Item]):
    """What a network is trained on."""

    @property
    def ids(self) -> Sequence[str]:
        """A name for each item; the order of an epoch is drawn from them."""

    def read(self, indices: Sequence[int], epoch: int) -> Item:
        """Read some items as they are seen in an epoch, counted from 0; called ahead, in another thread."""

    def collate(self, items: Item, device: torch.device) -> Sequence[Tensor | None]:
        """The arguments of the objective, on its device."""


class Trainer(ABC):
    """Network, optimiser and history of a training; subclasses say which, at which learning rate, and how to validate.

    Order, augmentation, dropout and learning rate of an epoch are functions of the seed and the epoch's number, so
    `state` is all that has to be saved: no random state, no scheduler.
    """

    FOLDER: ClassVar[type[TrainingFolder[Any]]]
    """Where the training is kept; messages take their words from it."""
    LESS_MEMORY: ClassVar[str]
    """What makes a step smaller, in words."""

    def __init__(
        self,
        config: TrainConfig | DistillConfig,
        accelerator: Accelerator,
        model: nn.Module,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        epoch_images: int | None = None,
        max_gradient_norm: float | None = None,
    ) -> None:
        """Prepare a network for training.

        Args:
            config: seed, batch size and number of epochs.
            accelerator: device, precision and processes.
            model: what is trained and saved.
            objective: the model with its loss; returns a scalar.
            optimizer: of the model's parameters.
            epoch_images: items of an epoch; None takes all.
            max_gradient_norm: to which gradients are clipped; None leaves them as they are.
        """
        self.seed, self.batch_size, self.epochs = config.seed, config.batch_size, config.epochs
        self.accelerator, self.model = accelerator, model
        self.epoch_images, self.max_gradient_norm = epoch_images, max_gradient_norm
        self.history: list[EpochRecord] = []
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)

    @abstractmethod
    def learning_rate(self, epochs_done: float) -> float:
        """The learning rate after a number of epochs, which may be fractional."""

    @abstractmethod
    def validate(self) -> tuple[float, float | None]:
        """Loss on the validation part, and foreground Dice where there is one, over all processes."""

    def fit(self, training_set: TrainingSet[Any], folder: TrainingFolder[Any], on_event: OnEvent) -> None:
        """Train the epochs that are missing, and save each in the folder.

        Raises:
            TrainingError: see `train_epoch`; also where a file cannot be written.
        """
        fingerprint = folder.inputs().fingerprint
        while len(self.history) < self.epochs:
            record = self.train_epoch(training_set, on_event)
            if self.accelerator.is_main_process:
                folder.save_checkpoint("last.pt", self.state(), fingerprint)
                self._save_best(folder, fingerprint)
                folder.write_epochs(self.history)
                on_event(EpochDone(record, is_best=best_epoch(self.history) is record))
        self.accelerator.wait_for_everyone()

    def resume(self, folder: TrainingFolder[Any]) -> None:
        """Continue from last.pt, if there is one; ConfigError where it cannot be read or is of another network."""
        if not folder.file("last.pt").exists():
            return
        self.restore(folder.load_checkpoint("last.pt"))
        if self.accelerator.is_main_process:  # the training may have been killed after last.pt and before best.pt
            self._save_best(folder, folder.inputs().fingerprint)

    def load_best(self, folder: TrainingFolder[Any]) -> EpochRecord:
        """Load the network of the best epoch; ConfigError where best.pt is of another epoch."""
        content, best = folder.load_checkpoint("best.pt"), best_epoch(self.history)
        if content.get("epoch") != best.epoch:
            raise folder.damaged("best.pt", f"it is of epoch {content.get('epoch')}, and the best one is {best.epoch}")
        self.model.load_state_dict(content["model"])
        return best

    def _save_best(self, folder: TrainingFolder[Any], fingerprint: str) -> None:
        """Write best.pt if the last epoch is the best; last.pt, which is written before, decides which one is."""
        best = best_epoch(self.history)
        if best is self.history[-1]:
            folder.save_checkpoint("best.pt", {"model": self.model.state_dict(), "epoch": best.epoch}, fingerprint)

    def train_epoch(self, training_set: TrainingSet[Any], on_event: OnEvent) -> EpochRecord:
        """Train one epoch and validate.

        Raises:
            TrainingError: a loss is not finite, or a batch does not fit into memory.
        """
        started, epoch = time.monotonic(), len(self.history)
        train_loss = self._pass(training_set, epoch, on_event)
        broadcast_buffers(self.accelerator, self.model)
        validation_loss, validation_dice = self.validate()
        if not math.isfinite(validation_loss):
            raise self._diverged("validation loss", validation_loss, f"epoch {epoch + 1}", epoch)
        record = EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            validation_loss=validation_loss,
            validation_dice=validation_dice,
            learning_rate=self.learning_rate(epoch),
            seconds=round(time.monotonic() - started, 3),
        )
        self.history.append(record)
        return record

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` continues."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load a state; ConfigError where it is of another network."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.history = [EpochRecord(**record) for record in state["history"]]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"The checkpoint is of another network: {str(error).splitlines()[0]} Resume it with the version of "
                f"nucseg that wrote it, or {self.FOLDER.COMMAND} again in another folder ({self.FOLDER.OPTION})."
            ) from None

    def _pass(self, training_set: TrainingSet[Any], epoch: int, on_event: OnEvent) -> float:
        """Every item once, in the order of the epoch; the mean loss."""
        torch.manual_seed(_dropout_seed(self.seed, epoch, self.accelerator.process_index))
        self.objective.train()
        order = epoch_order(training_set.ids, self.seed, epoch)[: self.epoch_images]
        shares = batches(order, **shard_options(self.accelerator, self.batch_size))
        read = prefetch(partial(training_set.read, epoch=epoch), shares, depth=prefetch_depth(shares))
        loss_sum, n_images, n_steps = 0.0, 0, len(shares)
        for step, (share, items) in enumerate(zip(shares, read, strict=True)):
            loss = self._step(training_set, items, len(share), self.learning_rate(epoch + step / n_steps))
            if not math.isfinite(loss):
                raise self._diverged("loss", loss, f"epoch {epoch + 1}, step {step + 1} of {n_steps}", epoch)
            loss_sum, n_images = loss_sum + loss * len(share), n_images + len(share)
            if self.accelerator.is_main_process:
                on_event(StepDone(epoch + 1, step + 1, n_steps, loss))
        loss_total, n_total = reduce_sum(self.accelerator, (loss_sum, n_images))
        return loss_total / n_total

    def _step(self, training_set: TrainingSet[Any], items: Any, n_images: int, learning_rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        try:
            loss = self.objective(*training_set.collate(items, self.accelerator.device))
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            if self.max_gradient_norm is not None:
                self.accelerator.clip_grad_norm_(self.objective.parameters(), self.max_gradient_norm)
            self.optimizer.step()
        except Exception as error:
            if not lacks_memory(error):
                raise
            raise self._too_large(n_images, reason(error)) from None
        return float(loss.detach())

    def _too_large(self, n_images: int, why: str) -> TrainingError:
        # halving the batch would be another training, so it is left to the user
        return TrainingError(
            f"Out of memory in a training step with {n_images} image(s) ({why}). Finished epochs are kept: free memory "
            f"and {self.FOLDER.RESUME}. Or {self.FOLDER.COMMAND} in another folder ({self.FOLDER.OPTION}) with "
            f"{self.LESS_MEMORY}."
        )

    def _diverged(self, what: str, value: float, when: str, epochs_done: int) -> TrainingError:
        kept = f" The checkpoint of epoch {epochs_done} is kept." if epochs_done else ""
        return TrainingError(
            f"The {what} became {value} in {when}.{kept} {self.FOLDER.COMMAND.capitalize()} in another folder "
            f"({self.FOLDER.OPTION}) with a lower --learning-rate, or with mixed precision off."
        )


def _dropout_seed(seed: int, epoch: int, process: int) -> int:
    digest = hashlib.blake2b(f"dropout/{seed}/{epoch}/{process}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
