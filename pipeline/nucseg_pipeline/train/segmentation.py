"""The training of a segmentation network: its optimiser, learning rate and validation."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from accelerate import Accelerator

from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.device import reduce_sum, shard_options
from nucseg_pipeline.modelling.inference import validate
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.training_folder import TrainingFolder
from nucseg_pipeline.train.objective import Objective
from nucseg_pipeline.train.trainer import Trainer


class SegmentationTrainer(Trainer):
    """Trains the network of a run."""

    FOLDER: ClassVar[type[TrainingFolder[Any]]] = RunFolder
    LESS_MEMORY: ClassVar[str] = "a smaller --batch-size, a narrower --width, or --preload off"

    def __init__(self, config: TrainConfig, accelerator: Accelerator, validation: EmbeddingDataset) -> None:
        """Build the network from the seed.

        Args:
            config: of the run.
            accelerator: device, precision and processes.
            validation: the images that epochs are compared on.

        Raises:
            ConfigError: there is no such network.
        """
        torch.manual_seed(config.seed)
        model = build_network(config).to(accelerator.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        super().__init__(config, accelerator, model, Objective(model), optimizer, epoch_images=config.epoch_images)
        self.config, self.segmentation_model, self.validation = config, model, validation

    def learning_rate(self, epochs_done: float) -> float:
        """See `learning_rate`."""
        return learning_rate(self.config, epochs_done)

    def validate(self) -> tuple[float, float | None]:
        """Loss and foreground Dice, means over the validation images."""
        scores = validate(
            self.segmentation_model,
            self.validation,
            device=self.accelerator.device,
            **shard_options(self.accelerator, self.batch_size),
        )
        loss, dice, n_images = reduce_sum(self.accelerator, (scores.loss, scores.dice, scores.n_images))
        return loss / n_images, dice / n_images


def learning_rate(config: TrainConfig, epochs_done: float) -> float:
    """The learning rate of a run's schedule after a number of epochs, which may be fractional."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * epochs_done / config.epochs)) / 2
