"""The training of a student: its loss, optimiser, learning rate and validation."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.distill.dataset import DistillDataset
from nucseg_pipeline.distill.folder import StudentFolder
from nucseg_pipeline.loading.batches import batches
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.modelling.device import reduce_sum, shard_options
from nucseg_pipeline.runs.training_folder import TrainingFolder
from nucseg_pipeline.train.trainer import Trainer

WEIGHT_DECAY = 0.02
"""Of AdamW, on all weights."""

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""

MAX_GRADIENT_NORM = 1.0
"""To which gradients are clipped."""


class DistillationLoss(nn.Module):
    """The network and its loss in one, so that large tensors stay in the precision that they were computed in."""

    def __init__(self, network: StudentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, inside: Tensor) -> Tensor:
        """Mean squared error over channels and the cells inside; shapes as in `DistillBatch`."""
        with self._attention(images.device):
            returned = self.network(images)
        with torch.autocast(images.device.type, enabled=False):
            difference = (returned - targets.to(returned.dtype)) * inside.to(returned.dtype)
            squares = torch.linalg.vector_norm(difference, dtype=torch.float32).square()
            error: Tensor = squares / (inside.sum() * targets.shape[1])
            return error

    def _attention(self, device: torch.device) -> AbstractContextManager[Any]:
        """For training on a CPU plain products: with few tokens, forward and backward are faster than when fused."""
        return sdpa_kernel(SDPBackend.MATH) if self.training and device.type == "cpu" else nullcontext()


class StudentTrainer(Trainer):
    """Trains a student."""

    FOLDER: ClassVar[type[TrainingFolder[Any]]] = StudentFolder
    LESS_MEMORY: ClassVar[str] = "a smaller --batch-size or --size"

    def __init__(
        self, config: DistillConfig, accelerator: Accelerator, pattern: Tensor, validation: DistillDataset
    ) -> None:
        """Draw the network from the seed.

        Args:
            config: of the distillation.
            accelerator: device, precision and processes.
            pattern: (256, 64, 64) standardised mean embedding, which the network returns at first.
            validation: the images that epochs are compared on.
        """
        torch.manual_seed(config.seed)
        network = StudentNetwork(SIZES[config.size])
        network.initialise_from_pattern(pattern)
        network = network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY, foreach=True
        )
        loss = DistillationLoss(network)
        super().__init__(config, accelerator, network, loss, optimizer, max_gradient_norm=MAX_GRADIENT_NORM)
        self.config, self.network, self.validation = config, network, validation

    def learning_rate(self, epochs_done: float) -> float:
        """Rises over the first steps, then falls to 0 along a cosine."""
        done = epochs_done / self.config.epochs
        rising = min(1.0, done / WARM_UP + 1e-3)
        return self.config.learning_rate * rising * (1 + math.cos(math.pi * done)) / 2

    @torch.no_grad()
    def validate(self) -> tuple[float, float | None]:
        """The loss, mean over the validation images."""
        self.objective.eval()
        shares = batches(range(len(self.validation)), **shard_options(self.accelerator, self.batch_size))
        loss_sum, n_images = 0.0, 0
        for batch in prefetch(self.validation.read, shares):
            loss = float(self.objective(*self.validation.collate(batch, self.accelerator.device)))
            loss_sum, n_images = loss_sum + loss * len(batch.images), n_images + len(batch.images)
        loss_total, n_total = reduce_sum(self.accelerator, (loss_sum, n_images))
        return loss_total / n_total, None
