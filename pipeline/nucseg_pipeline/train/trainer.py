"""A network while it learns: it can be stopped after any epoch and goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator

from nucseg.adaptive_batch import lacks_memory, reason
from nucseg.errors import ConfigError, TrainingError
from nucseg.replay import Motions
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batch import Batch, Row, collate
from nucseg_pipeline.loading.batches import batches, batches_ahead, epoch_order
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.modelling.device import broadcast_buffers, reduce_sum, shard_options
from nucseg_pipeline.modelling.inference import validate
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.runs.history import EpochRecord
from nucseg_pipeline.train.augmentation import Augmentation
from nucseg_pipeline.train.objective import Objective


class Trainer:
    """Network, optimiser and history of a run.

    Order, augmentation, dropout and learning rate of an epoch are functions of the seed and the epoch's number, so
    `state` is all there is to keep: no random state, no scheduler.
    """

    def __init__(self, config: TrainConfig, accelerator: Accelerator) -> None:
        """Build the network from the seed; ConfigError where there is no such network."""
        self.config, self.accelerator = config, accelerator
        self.history: list[EpochRecord] = []
        torch.manual_seed(config.seed)
        self.model = build_network(config).to(accelerator.device)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.objective, self.optimizer = accelerator.prepare(Objective(self.model), optimizer)

    @property
    def best(self) -> EpochRecord:
        """The first epoch with the highest validation Dice."""
        return max(self.history, key=lambda row: row.validation_dice)

    def learn(
        self,
        rows: EmbeddingDataset,
        validation: EmbeddingDataset,
        augmentation: Augmentation,
        stepped: Callable[[int, int, float], None],
    ) -> EpochRecord:
        """One epoch and its validation.

        Args:
            rows: The training part.
            validation: The validation part.
            augmentation: What is shown of the training part.
            stepped: Called with step, steps and loss after each step.

        Raises:
            TrainingError: at the first loss that is not finite, and where a batch does not fit into memory.
        """
        began, epoch = time.monotonic(), len(self.history)
        train_loss = self._pass(rows, epoch, augmentation, stepped)
        broadcast_buffers(self.accelerator, self.model)
        scores = validate(
            self.model,
            validation,
            device=self.accelerator.device,
            **shard_options(self.accelerator, self.config.batch_size),
        )
        loss, dice, n_images = reduce_sum(self.accelerator, (scores.loss, scores.dice, scores.n_images))
        row = EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            validation_loss=loss / n_images,
            validation_dice=dice / n_images,
            learning_rate=learning_rate(self.config, epoch),
            seconds=round(time.monotonic() - began, 3),
        )
        self.history.append(row)
        return row

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` goes on."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "history": [asdict(row) for row in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state; ConfigError where it is of another network."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.history = [EpochRecord(**row) for row in state["history"]]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"The checkpoint is of another network: {str(error).splitlines()[0]} Resume it with the version of "
                "nucseg that wrote it, or train anew in another folder (--run)."
            ) from None

    def _pass(
        self, rows: EmbeddingDataset, epoch: int, augmentation: Augmentation, stepped: Callable[[int, int, float], None]
    ) -> float:
        """Every training row once, in the order of the epoch; the mean loss."""
        torch.manual_seed(_dropout_seed(self.config.seed, epoch, self.accelerator.process_index))
        self.objective.train()
        order = epoch_order(rows.ids, self.config.seed, epoch)[: self.config.epoch_images]
        shares = batches(order, **shard_options(self.accelerator, self.config.batch_size))
        loss_sum, n_shown = 0.0, 0
        for step, (share, motions) in enumerate(self._shown(rows, shares, epoch, augmentation)):
            batch = augmentation.moved(collate(share, self.accelerator.device), motions)
            loss = self._step(batch, learning_rate(self.config, epoch + step / len(shares)))
            if not math.isfinite(loss):
                raise _diverged(loss, epoch, step, len(shares))
            loss_sum, n_shown = loss_sum + loss * len(share), n_shown + len(share)
            stepped(step + 1, len(shares), loss)
        loss_total, n_total = reduce_sum(self.accelerator, (loss_sum, n_shown))
        return loss_total / n_total

    def _shown(
        self, rows: EmbeddingDataset, shares: Sequence[Sequence[int]], epoch: int, augmentation: Augmentation
    ) -> Iterator[tuple[list[Row], Motions]]:
        """The rows of each batch as they are shown, and how they move; the next ones while the last are learned."""

        def shown(share: Sequence[int]) -> tuple[list[Row], Motions]:
            return augmentation.shown(rows, share, seed=self.config.seed, epoch=epoch)

        return prefetch(shown, shares, depth=batches_ahead(shares))

    def _step(self, batch: Batch, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        embedding = None if batch.embedding is None else batch.embedding.float()
        try:
            loss = self.objective(batch.image, embedding, batch.target, batch.ignore, batch.distance)
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.optimizer.step()
        except Exception as error:
            if not lacks_memory(error):
                raise
            raise _too_large(len(batch.image), reason(error)) from None
        return float(loss.detach())


def learning_rate(config: TrainConfig, epochs_done: float) -> float:
    """The learning rate after a (broken) number of epochs."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * epochs_done / config.epochs)) / 2


def _dropout_seed(seed: int, epoch: int, process: int) -> int:
    digest = hashlib.blake2b(f"dropout/{seed}/{epoch}/{process}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def _too_large(n_images: int, why: str) -> TrainingError:
    # halving the batch would be another training, so it is left to the user
    return TrainingError(
        f"There is no memory for a step with {n_images} image(s) ({why}). Finished epochs are kept: close what else "
        "uses the memory and go on with --resume. Or train in another folder (--run) with a smaller --batch-size, a "
        "narrower --width, or --preload off."
    )


def _diverged(loss: float, epoch: int, step: int, steps: int) -> TrainingError:
    kept = f"The checkpoint of epoch {epoch} is kept. " if epoch else ""
    return TrainingError(
        f"The loss became {loss} in epoch {epoch + 1}, step {step + 1} of {steps}. {kept}Train in another folder "
        "(--run) with a lower --learning-rate, or with mixed precision off."
    )
