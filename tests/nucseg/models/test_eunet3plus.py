"""eU-Net3+ is U-Net3+ with gated linear units, and learns from its guide."""

import pytest
import torch
from torch import Tensor

from nucseg.losses import SegmentationLoss
from nucseg.models import ModelConfig, build_model


@pytest.mark.parametrize(("activation", "same_as"), [(None, "glu"), ("relu", None)])
def test_it_is_unet3plus_with_another_activation(activation: str | None, same_as: str | None, make_inputs) -> None:
    logits: list[Tensor] = []
    for name, chosen in (("eunet3plus", activation), ("unet3plus", same_as)):
        torch.manual_seed(0)
        logits.append(build_model(name, ModelConfig(width=2, activation=chosen)).eval()(*make_inputs()))

    assert torch.equal(*logits)


def losses_if_only_the_embedding_is_informative(fusion: str) -> list[float]:
    """Train on noise images; nuclei fill the bottleneck cells where sixteen embedding channels are raised."""
    torch.manual_seed(0)
    cells = (torch.rand(8, 2, 2) < 0.5).long()
    target = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)
    embedding = 0.1 * torch.randn(8, 256, 64, 64)
    embedding[:, :16] += 0.1 * cells.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    model, measure = build_model("eunet3plus", ModelConfig(width=2, fusion=fusion, dropout=0.0)), SegmentationLoss()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(15):
        loss = measure(model(torch.rand(8, 3, 32, 32), embedding), target, torch.zeros(8, 32, 32, dtype=torch.bool))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_guided_model_learns_from_the_embedding_alone() -> None:
    guided, alone = (losses_if_only_the_embedding_is_informative(fusion) for fusion in ("xgfb", "none"))

    assert guided[-1] < 0.2
    assert min(alone) > 0.5
