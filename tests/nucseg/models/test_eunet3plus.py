"""eU-Net3+ against U-Net3+'s drawing, written out on the network's own weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.losses import SegmentationLoss
from nucseg.models import MODELS, EUNet3Plus, ModelConfig, SegmentationModel, build_model

ACTIVATE = {"glu": lambda x: F.glu(x, dim=1), "relu": F.relu}


def make_inputs(side_px: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, side_px, side_px, generator=generator)
    return image, 0.1 * torch.randn(2, 256, 64, 64, generator=generator)


def make_lively(model: SegmentationModel) -> SegmentationModel:
    """Give every parameter and every running statistic a value of its own, so that no part hides behind a zero."""
    generator = torch.Generator().manual_seed(2)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif "project" in name:
            value.copy_(torch.randn(value.shape, generator=generator))
    return model


def unet3plus_by_hand(weights: dict[str, Tensor], image: Tensor, activation: str) -> list[Tensor]:
    """Huang et al. 2020, figure 2 and section 2.1, in evaluation mode: the five outputs, finest first."""

    def block(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.0.weight"], padding=1)
        mean, var = weights[f"{name}.1.running_mean"], weights[f"{name}.1.running_var"]
        x = F.batch_norm(x, mean, var, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"])
        return ACTIVATE[activation](x)

    def head(x: Tensor, i: int) -> Tensor:
        x = F.conv2d(x, weights[f"heads.convs.{i}.weight"], weights[f"heads.convs.{i}.bias"], padding=1)
        return F.interpolate(x, image.shape[-2:], mode="bilinear", align_corners=False)

    encoder, x = [], 2 * image - 1
    for i in range(5):
        x = block(block(x if i == 0 else F.max_pool2d(x, 2), f"encoder.levels.{i}.0"), f"encoder.levels.{i}.1")
        encoder.append(x)
    decoder = {4: encoder[4]}
    for n in (3, 2, 1, 0):
        down = [block(F.max_pool2d(encoder[i], 2 ** (n - i)), f"nodes.{n}.squeeze.{i}") for i in range(n)]
        same = [block(encoder[n], f"nodes.{n}.squeeze.{n}")]
        up = [
            block(F.interpolate(decoder[i], scale_factor=2 ** (i - n), mode="bilinear"), f"nodes.{n}.squeeze.{i}")
            for i in range(n + 1, 5)
        ]
        decoder[n] = block(torch.cat(down + same + up, dim=1), f"nodes.{n}.fuse")
    return [head(decoder[i], i) for i in range(5)]


@pytest.mark.parametrize("activation", ["glu", "relu"])
def test_the_network_is_the_drawing(activation: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(width=3, fusion="none", deep_supervision=True)
    model = make_lively(EUNet3Plus(config, activation=activation)).eval()
    image, _ = make_inputs(48)

    sides = model.side_logits(image)

    assert len(sides) == 5
    for ours, drawn in zip(sides, unet3plus_by_hand(model.state_dict(), image, activation), strict=True):
        torch.testing.assert_close(ours, drawn, rtol=1e-4, atol=1e-4)


def test_every_node_fuses_five_times_the_width() -> None:
    model = build_model("eunet3plus", width=4, fusion="none")

    assert [node.fuse[0].in_channels for node in model.nodes] == [20, 20, 20, 20]


@pytest.mark.parametrize("fusion", ["none", "xgfb"])
def test_the_logits_are_two_classes_at_the_images_size(fusion: str) -> None:
    image, embedding = make_inputs(48)

    logits = build_model("eunet3plus", width=2, fusion=fusion)(image[:, :, :32], embedding)

    assert logits.shape == (2, 2, 32, 48)


@pytest.mark.parametrize(("deep_supervision", "n_sides"), [(False, 1), (True, 5)])
def test_forward_is_the_finest_of_the_side_outputs(deep_supervision: bool, n_sides: int) -> None:
    model = build_model("eunet3plus", width=2, deep_supervision=deep_supervision).eval()
    inputs = make_inputs()

    sides = model.side_logits(*inputs)

    assert [side.shape for side in sides] == [(2, 2, 32, 32)] * n_sides
    assert torch.equal(model(*inputs), sides[0])
    assert all(torch.equal(a, b) for a, b in zip(model(*inputs, sides=True), sides, strict=True))


def test_the_model_centres_the_image_itself() -> None:
    model, (image, embedding) = build_model("eunet3plus", width=2), make_inputs()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    model(image, embedding)

    torch.testing.assert_close(seen[0], 2 * image - 1)


def test_training_drops_the_asked_share_of_the_bottleneck_and_evaluation_nothing() -> None:
    torch.manual_seed(0)
    model, inputs = build_model("eunet3plus", width=8, dropout=0.3), make_inputs(64)
    seen: list[Tensor] = []
    model.nodes[3].register_forward_pre_hook(lambda _, args: seen.append(args[0][4].detach().clone()))

    model(*inputs)
    model.eval()(*inputs)

    assert (seen[0] == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (seen[1] == 0).sum() == 0


def test_every_parameter_learns() -> None:
    model = make_lively(build_model("eunet3plus", width=2, deep_supervision=True))

    torch.stack(model(*make_inputs(), sides=True)).square().mean().backward()

    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_embedding_changes_the_answer_of_a_guided_model_alone() -> None:
    image, embedding = make_inputs()
    for fusion, changed in (("xgfb", True), ("none", False)):
        model = make_lively(build_model("eunet3plus", width=2, fusion=fusion)).eval()
        assert model.guided == changed
        assert torch.equal(model(image, embedding), model(image, embedding.flip(-1))) != changed


def test_one_seed_gives_a_guided_and_an_unguided_model_the_same_first_answer() -> None:
    answers = []
    for fusion in ("none", "xgfb"):
        torch.manual_seed(3)
        answers.append(build_model("eunet3plus", width=2, fusion=fusion).eval()(*make_inputs()))

    assert torch.equal(*answers)


def losses_where_only_the_embedding_tells(fusion: str) -> list[float]:
    """Train on noise for an image; nuclei fill the bottleneck cells where sixteen embedding channels are raised."""
    torch.manual_seed(0)
    cells = (torch.rand(8, 2, 2) < 0.5).long()
    target = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)
    embedding = 0.1 * torch.randn(8, 256, 64, 64)
    embedding[:, :16] += 0.1 * cells.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    model, measure = build_model("eunet3plus", width=2, fusion=fusion, dropout=0.0), SegmentationLoss()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(15):
        loss = measure(model(torch.rand(8, 3, 32, 32), embedding), target, torch.zeros(8, 32, 32, dtype=torch.bool))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_guided_model_learns_what_only_the_embedding_tells() -> None:
    guided, alone = (losses_where_only_the_embedding_tells(fusion) for fusion in ("xgfb", "none"))

    assert guided[-1] < 0.2
    assert min(alone) > 0.5


def test_the_same_seed_gives_the_same_step_bit_for_bit() -> None:
    def step() -> list[Tensor]:
        torch.manual_seed(7)
        model = build_model("eunet3plus", width=4)
        model(*make_inputs(64)).square().mean().backward()
        return [p.grad for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


def test_bfloat16_autocast_gives_nearly_the_same_logits() -> None:
    torch.manual_seed(0)
    model, inputs = make_lively(build_model("eunet3plus", width=4)).eval(), make_inputs(64)

    exact = model(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(*inputs).float()

    assert ((exact - rough).square().mean() / exact.var()).item() < 1e-2


def test_weights_survive_saving_and_loading() -> None:
    saved, fresh = build_model("eunet3plus", width=2).eval(), build_model("eunet3plus", width=2).eval()

    fresh.load_state_dict(saved.state_dict())

    assert torch.equal(fresh(*make_inputs()), saved(*make_inputs()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "unet9"}, rf"'unet9'.*{', '.join(MODELS)}"),
        ({"fusion": "sum"}, r"'sum'.*none, xgfb"),
        ({"width": 0}, "width.*got 0"),
        ({"dropout": 1.0}, r"dropout.*got 1\.0"),
    ],
)
def test_an_impossible_model_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(**{"name": "eunet3plus", **options})


@pytest.mark.parametrize(
    ("image", "embedding", "message"),
    [
        (torch.zeros(1, 3, 40, 64), torch.zeros(1, 256, 64, 64), r"multiples of 16.*40x64.*48x64"),
        (torch.zeros(1, 3, 0, 64), torch.zeros(1, 256, 64, 64), r"0x64.*16x64"),
        (torch.zeros(1, 1, 32, 32), torch.zeros(1, 256, 64, 64), r"\(1, 1, 32, 32\)"),
        (torch.zeros(1, 32, 32, 3), torch.zeros(1, 256, 64, 64), r"second axis"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 256, 64, 64), r"uint8.*divide"),
        (torch.zeros(1, 3, 32, 32), None, "got none"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(1, 256, 64, 64), r"\(2, 256, 64, 64\).*got \(1, 256, 64, 64\)"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 64, 64, 256), r"got \(1, 64, 64, 256\)"),
    ],
)
def test_wrong_input_is_refused_with_the_way_out(image: Tensor, embedding: Tensor | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("eunet3plus", width=2)(image, embedding)
