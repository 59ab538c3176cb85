"""The student's network: folding changes nothing, its start is known, and every part contributes."""

import numpy as np
import pytest
import torch
from torch import nn

from nucseg.encoders.student import SIZES, StudentShape
from nucseg.encoders.student.network import StudentNetwork

TINY = StudentShape(channels=8, fine_blocks=1, coarse_blocks=1, positions=3)


@pytest.fixture
def network() -> StudentNetwork:
    """A network whose norms have statistics of their own."""
    torch.manual_seed(0)
    network = StudentNetwork(TINY)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias)
    return network.eval()


@pytest.mark.parametrize("size", SIZES)
def test_every_size_returns_embeddings_and_fits_into_the_package(size: str) -> None:
    with torch.device("meta"):
        network = StudentNetwork(SIZES[size], folded=True)
        embedding = network(torch.empty(2, 3, 256, 256))

    assert embedding.shape == (2, 256, 64, 64)
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 6_000_000  # bytes, in float16


def test_folded_it_is_the_same_function_scaled_and_shifted(network: StudentNetwork) -> None:
    images, offset = torch.randn(2, 3, 256, 256), torch.randn(256)

    with torch.no_grad():
        expected = 3 * network(images) + offset[:, None, None]
        folded = network.folded(3, offset)
        found = folded(images)

    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_it_starts_at_the_best_approximation_of_a_pattern_by_its_maps(network: StudentNetwork) -> None:
    pattern = torch.randn(256, 64, 64)
    u, s, v = np.linalg.svd(pattern.double().flatten(1).numpy(), full_matrices=False)
    nearest = ((u[:, :3] * s[:3]) @ v[:3]).reshape(256, 64, 64)  # Eckart and Young 1936

    network.initialise_from_pattern(pattern)
    with torch.no_grad():
        embeddings = network(torch.randn(2, 3, 256, 256))

    np.testing.assert_allclose(embeddings.numpy(), np.stack([nearest, nearest]), atol=1e-4)


def test_every_weight_gets_a_gradient(network: StudentNetwork) -> None:
    network.train()
    network(torch.randn(2, 3, 256, 256)).square().mean().backward()

    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_cell_sees_its_own_pixels_and_all_others(network: StudentNetwork) -> None:
    images = torch.randn(1, 3, 256, 256, requires_grad=True)
    network(images)[0, :, 32, 20].sum().backward()

    reach = images.grad.abs().sum(dim=(0, 1))
    assert (reach > 0).float().mean() > 0.99
    own = reach[120:140, 72:92].mean()
    assert own > 5 * reach[:64, 192:].mean()
