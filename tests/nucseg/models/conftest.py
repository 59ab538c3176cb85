"""Inputs, and reference implementations that run on a network's own weights, for the tests of the architectures."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nucseg.models import SegmentationModel

ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "swish": F.silu,
    "glu": lambda x: F.glu(x, dim=1),
}


@dataclass(frozen=True)
class Drawing:
    """The parts that the papers' figures share, written with torch.nn.functional on given weights, for evaluation."""

    weights: dict[str, Tensor]
    activation: str

    def convolve(self, x: Tensor, name: str, **options: object) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), **options)

    def normalise(self, x: Tensor, name: str) -> Tensor:
        parameters = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.weights[f"{name}.{parameter}"] for parameter in parameters))

    def activate(self, x: Tensor) -> Tensor:
        return ACTIVATE[self.activation](x)

    def block(self, x: Tensor, name: str, dilation: int = 1) -> Tensor:
        x = self.convolve(x, f"{name}.0", padding=dilation, dilation=dilation)
        return self.activate(self.normalise(x, f"{name}.1"))

    def encode(self, image: Tensor) -> list[Tensor]:
        levels, x = [], 2 * image - 1
        for i in range(5):
            x = self.block(x if i == 0 else F.max_pool2d(x, 2), f"encoder.levels.{i}.0")
            x = self.block(x, f"encoder.levels.{i}.1")
            levels.append(x)
        return levels

    def up(self, below: Tensor, skip: Tensor, name: str) -> Tensor:
        enlarged = F.conv_transpose2d(
            below, self.weights[f"{name}.enlarge.weight"], self.weights[f"{name}.enlarge.bias"], stride=2
        )
        x = self.block(torch.cat([skip, enlarged], dim=1), f"{name}.fuse.0")
        return self.block(x, f"{name}.fuse.1")

    def heads(self, maps: list[Tensor]) -> list[Tensor]:
        sides = [self.convolve(x, f"heads.convs.{i}", padding=1) for i, x in enumerate(maps)]
        return [F.interpolate(x, maps[0].shape[-2:], mode="bilinear", align_corners=False) for x in sides]


@pytest.fixture
def draw() -> type[Drawing]:
    return Drawing


@pytest.fixture
def make_inputs() -> Callable[..., tuple[Tensor, Tensor]]:
    """Makes two images and their embeddings."""

    def make(height: int = 32, width: int = 32) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        image = torch.rand(2, 3, height, width, generator=generator)
        return image, 0.1 * torch.randn(2, 256, 64, 64, generator=generator)

    return make


@pytest.fixture
def make_lively() -> Callable[[SegmentationModel], SegmentationModel]:
    """Sets every parameter and running statistic to a random value, so that no part is hidden by zeros."""

    def make(model: SegmentationModel) -> SegmentationModel:
        generator = torch.Generator().manual_seed(2)
        for name, value in model.state_dict().items():
            if value.ndim == 1:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif "project" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
        return model

    return make
