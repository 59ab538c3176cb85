"""The recorded feature maps are the outputs of encoder and fusion when called directly."""

import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.models import FUSIONS, MODELS, ModelConfig, SegmentationModel, build_model
from nucseg.models.features import encoder_features

GUIDED = tuple(name for name in FUSIONS if name != "none")


def network(name: str = "eunet3plus", fusion: str = "xgfb") -> SegmentationModel:
    """A network whose fusion changes the maps; a new one does not."""
    torch.manual_seed(0)
    model = build_model(name, ModelConfig(width=2, fusion=fusion))
    for parameter in model.fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def inputs(side_px: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, side_px, side_px, generator=generator)
    return image, torch.randn(2, 256, 64, 64, generator=generator).half()


@pytest.mark.parametrize("name", MODELS)
def test_levels_and_block_are_what_encoder_and_fusion_return(name: str) -> None:
    model, (image, embedding) = network(name), inputs()
    features = encoder_features(model, image, embedding)

    model.eval()
    with torch.no_grad():
        levels = model.encoder((image - 0.5) / 0.5)
        fused = model.fusion(levels, embedding)
    assert len(features.levels) == len(features.fused) == 5
    torch.testing.assert_close([*features.levels, *features.fused], [*levels, *fused])


def test_the_concatenation_is_the_latent_and_the_averaged_embedding() -> None:
    image, embedding = inputs()
    features = encoder_features(network(), image, embedding)

    pooled = embedding.float().unfold(2, 16, 16).unfold(3, 16, 16).mean(dim=(-2, -1))
    assert features.concatenation.shape == (2, 16 * 2 + 256, 4, 4)
    torch.testing.assert_close(features.concatenation[:, :32], features.levels[-1])
    torch.testing.assert_close(features.concatenation[:, 32:], pooled)
    torch.testing.assert_close(features.embedding, embedding.float())


@pytest.mark.parametrize("fusion", GUIDED)
def test_changed_are_the_levels_that_the_fusion_reaches(fusion: str) -> None:
    features = encoder_features(network(fusion=fusion), *inputs())

    assert features.changed == ((2, 3, 4) if fusion == "multiscale" else (4,))


def test_without_guidance_there_are_only_levels() -> None:
    image, embedding = inputs()

    for features in (encoder_features(network(fusion="none"), image, given) for given in (None, embedding)):
        assert len(features.levels) == 5
        assert (features.embedding, features.concatenation, features.fused, features.changed) == (None, None, (), ())


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    model, given = network().train(training), inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    first, second = encoder_features(model, *given), encoder_features(model, *given)

    assert model.training is training
    assert not model.encoder._forward_hooks
    assert not model.fusion._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(first.fused[-1], second.fused[-1])  # no dropout, no statistics of the batch
    assert not first.levels[0].requires_grad


def test_hooks_are_removed_if_the_network_refuses_its_input() -> None:
    model, (image, _) = network().train(), inputs()

    with pytest.raises(ConfigError, match="got none"):
        encoder_features(model, image, None)
    assert model.training
    assert not model.encoder._forward_hooks
