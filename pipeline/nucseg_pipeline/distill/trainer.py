"""A student while it learns: it can be stopped after any epoch and goes on as if nothing had happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nucseg.adaptive_batch import lacks_memory, reason
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES
from nucseg.errors import ConfigError, TrainingError
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.distill.dataset import DistillDataset, Shown
from nucseg_pipeline.loading.batches import batches, epoch_order
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.modelling.device import broadcast_buffers, reduce_sum, shard_options

WEIGHT_DECAY = 0.02
"""Of AdamW, on all weights."""

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""

LONGEST_GRADIENT = 1.0
"""Norm that a gradient is cut down to."""


@dataclass(frozen=True)
class EpochTold:
    """One line of epochs.csv."""

    epoch: int
    """Counted from 1."""
    train_error: float
    """Relative squared error over what was shown, while it was learned; 1 is that of the channel means."""
    validation_error: float
    """Of the validation images as they are."""
    learning_rate: float
    """At the first step of the epoch."""
    seconds: float


class DistillationLoss(nn.Module):
    """The network and its loss in one, so that what is large stays in the precision it was computed in."""

    def __init__(self, network: StudentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, inside: Tensor) -> Tensor:
        """Mean over cells and channels of the squared error of what is inside."""
        returned = self.network(images)
        with torch.autocast(images.device.type, enabled=False):
            difference = (returned - targets.to(returned.dtype)) * inside.to(returned.dtype)
            squares = torch.linalg.vector_norm(difference, dtype=torch.float32).square()
            error: Tensor = squares / (inside.sum() * targets.shape[1])
            return error


class StudentTrainer:
    """Network, optimiser and history of a distillation.

    Order and learning rate are functions of the seed and the epoch's number: `state` is all there is to keep.
    """

    def __init__(self, config: DistillConfig, accelerator: Accelerator, pattern: Tensor) -> None:
        """Draw the network from the seed; it begins with the pattern (256, 64, 64), brought to the standard."""
        self.config, self.accelerator = config, accelerator
        self.history: list[EpochTold] = []
        torch.manual_seed(config.seed)
        network = StudentNetwork(SIZES[config.size])
        network.initialise_from_pattern(pattern)
        self.network = network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY, foreach=True
        )
        self.imitation, self.optimizer = accelerator.prepare(DistillationLoss(self.network), optimizer)

    @property
    def best(self) -> EpochTold:
        """The first epoch with the least validation error."""
        return min(self.history, key=lambda row: row.validation_error)

    def learn(
        self, lessons: DistillDataset, validation: DistillDataset, stepped: Callable[[int, int, float], None]
    ) -> EpochTold:
        """One epoch and its validation.

        Raises:
            TrainingError: at the first loss that is not finite, and where a batch does not fit into memory.
        """
        began, epoch = time.monotonic(), len(self.history)
        self.imitation.train()
        order = epoch_order(lessons.names, self.config.seed, epoch)
        shares = batches(order, **shard_options(self.accelerator, self.config.batch_size))
        errors, n_shown = 0.0, 0
        for step, shown in enumerate(self._given(lessons, shares)):
            error = self._step(shown, _rate(self.config, (epoch + step / len(shares)) / self.config.epochs))
            if not math.isfinite(error):
                raise _diverged(error, epoch, step, len(shares))
            errors, n_shown = errors + error * len(shown.images), n_shown + len(shown.images)
            stepped(step + 1, len(shares), error)
        broadcast_buffers(self.accelerator, self.network)
        summed, n_total = reduce_sum(self.accelerator, (errors, n_shown))
        validation_error = self._validate(validation)
        if not math.isfinite(validation_error):
            raise _diverged(validation_error, epoch, len(shares) - 1, len(shares))
        row = EpochTold(
            epoch=epoch + 1,
            train_error=summed / n_total,
            validation_error=validation_error,
            learning_rate=_rate(self.config, epoch / self.config.epochs),
            seconds=round(time.monotonic() - began, 3),
        )
        self.history.append(row)
        return row

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` goes on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(row) for row in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state; ConfigError where it is of another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = [EpochTold(**row) for row in state["history"]]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"The checkpoint is of another student: {str(error).splitlines()[0]} Go on with the version of nucseg "
                "that wrote it, or distill anew in another folder (--out)."
            ) from None

    def _step(self, shown: Shown, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            with _attention(self.accelerator.device):
                loss = self.imitation(*self._moved(shown))
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.imitation.parameters(), LONGEST_GRADIENT)
            self.optimizer.step()
        except Exception as error:
            if not lacks_memory(error):
                raise
            raise _too_large(len(shown.images), reason(error)) from None
        return float(loss.detach())

    @torch.no_grad()
    def _validate(self, validation: DistillDataset) -> float:
        self.imitation.eval()
        shares = batches(range(len(validation)), **shard_options(self.accelerator, self.config.batch_size))
        weighted = [
            (float(self.imitation(*self._moved(shown))) * len(shown.images), len(shown.images))
            for shown in self._given(validation, shares)
        ]
        errors, n_images = reduce_sum(self.accelerator, map(sum, zip(*weighted, strict=True)))
        return errors / n_images

    def _moved(self, shown: Shown) -> list[Tensor]:
        return [part.to(self.accelerator.device) for part in (shown.images, shown.targets, shown.inside)]

    def _given(self, lessons: DistillDataset, shares: Sequence[Sequence[int]]) -> Iterator[Shown]:
        """The lessons of each batch; the next one is read while the last is learned."""
        return prefetch(lessons.read, shares)


def _attention(device: torch.device) -> AbstractContextManager[Any]:
    """On a CPU plain products: with so few tokens they are faster there and back than the fused kernels."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _rate(config: DistillConfig, done: float) -> float:
    """The learning rate after a share of all steps."""
    rising = min(1.0, done / WARM_UP + 1e-3)
    return config.learning_rate * rising * (1 + math.cos(math.pi * done)) / 2


def _too_large(n_images: int, why: str) -> TrainingError:
    return TrainingError(
        f"There is no memory for a step with {n_images} image(s) ({why}). Finished epochs are kept: close what else "
        "uses the memory and run the same command again, or distill in another folder (--out) with a smaller "
        "--batch-size or --size."
    )


def _diverged(error: float, epoch: int, step: int, steps: int) -> TrainingError:
    kept = f"The checkpoint of epoch {epoch} is kept. " if epoch else ""
    return TrainingError(
        f"The error became {error} in epoch {epoch + 1}, step {step + 1} of {steps}. {kept}Distill in another folder "
        "(--out) with a lower --learning-rate, or with mixed precision off."
    )
