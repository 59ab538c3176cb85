"""What holds for every architecture, fusion and activation; and what the options add."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.losses import SegmentationLoss, presence_loss
from nucseg.models import ACTIVATIONS, FUSIONS, MODELS, ModelConfig, SegmentationModel, build_model
from nucseg.models.base import PresenceHead

OPTIONS: dict[str, dict[str, object]] = {
    "deep_supervision": {"deep_supervision": True},
    "classification_guided": {"classification_guided": True},
    "instance_head": {"instance_head": "distance"},
}
ALL_OPTIONS = {name: value for option in OPTIONS.values() for name, value in option.items()}

EVERY = list(product(MODELS, FUSIONS))
SOME = sorted({*product(MODELS, ["xgfb"]), *product(["unet"], FUSIONS)})

# ---- every network ----


@pytest.mark.parametrize(
    ("name", "fusion", "activation"), [*product(MODELS, FUSIONS, [None]), *product(MODELS, ["none"], ACTIVATIONS)]
)
def test_the_logits_have_two_classes_at_the_images_size_and_depend_on_the_saved_weights_alone(
    name: str, fusion: str, activation: str | None, make_inputs, make_lively
) -> None:
    config, inputs = ModelConfig(width=2, fusion=fusion, activation=activation), make_inputs(32, 48)
    model, fresh = make_lively(build_model(name, config)).eval(), build_model(name, config).eval()
    fresh.load_state_dict(model.state_dict())

    with torch.no_grad():
        logits = model(*inputs)
        assert logits.shape == (2, 2, 32, 48)
        assert torch.equal(model(*inputs), logits)
        assert torch.equal(fresh(*inputs), logits)


@pytest.mark.parametrize(("name", "fusion"), SOME)
def test_the_loss_of_a_tiny_batch_falls(name: str, fusion: str, make_inputs) -> None:
    image, embedding = make_inputs()
    target, ignore = (image[:, 0] > 0.5).long(), torch.zeros(2, 32, 32, dtype=torch.bool)
    torch.manual_seed(0)
    model, measure = build_model(name, ModelConfig(width=2, fusion=fusion, dropout=0.0)), SegmentationLoss()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=2e-2), []
    for _ in range(8):
        loss = measure(model(image, embedding), target, ignore)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize(("name", "fusion"), EVERY)
def test_bfloat16_autocast_gives_nearly_the_same_logits(name: str, fusion: str, make_inputs, make_lively) -> None:
    torch.manual_seed(0)
    model, inputs = make_lively(build_model(name, ModelConfig(width=4, fusion=fusion))).eval(), make_inputs()

    with torch.no_grad():
        exact = model(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(*inputs).float()

    assert ((exact - rough).square().mean() / exact.var()).item() < 1e-2


@pytest.mark.parametrize(("name", "fusion"), EVERY)
def test_every_parameter_gets_a_gradient(name: str, fusion: str, make_inputs, make_lively) -> None:
    torch.manual_seed(1)
    # an activation that is nowhere flat: with two channels a rectifier may block a path
    model = make_lively(build_model(name, ModelConfig(width=2, fusion=fusion, activation="swish", **ALL_OPTIONS)))

    outputs = model.outputs(*make_inputs())
    terms = [*outputs.sides, outputs.presence, outputs.distance]
    torch.stack([term.square().mean() for term in terms]).sum().backward()

    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "fusion"), EVERY)
def test_the_embedding_changes_the_logits_of_a_guided_model_only(
    name: str, fusion: str, make_inputs, make_lively
) -> None:
    torch.manual_seed(0)
    image, embedding = make_inputs()
    model = make_lively(build_model(name, ModelConfig(width=2, fusion=fusion, activation="swish"))).eval()

    assert model.guided == (fusion != "none")
    assert torch.equal(model(image, embedding), model(image, embedding.roll(1, 1))) != model.guided


@pytest.mark.parametrize("name", MODELS)
def test_with_one_seed_guided_and_unguided_models_start_with_the_same_logits(name: str, make_inputs) -> None:
    logits = []
    for fusion in FUSIONS:
        torch.manual_seed(3)
        logits.append(build_model(name, ModelConfig(width=2, fusion=fusion)).eval()(*make_inputs()))

    assert all(torch.equal(logits[0], others) for others in logits[1:])


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_step_bit_for_bit(name: str, make_inputs) -> None:
    def step() -> list[Tensor]:
        torch.manual_seed(7)
        model = build_model(name, ModelConfig(width=4))
        model(*make_inputs()).square().mean().backward()
        return [p.grad for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_names_its_source_and_its_own_activation(name: str) -> None:
    own = ACTIVATIONS["glu" if name == "eunet3plus" else "relu"].make
    model = build_model(name, ModelConfig(width=2))

    assert isinstance(model.encoder.levels[0][0][2], own)
    assert ", doi " in model.source or "MICCAI" in model.source


# ---- shared parts ----


def test_the_model_centres_the_image_itself(make_inputs) -> None:
    model, (image, embedding) = build_model("unet", ModelConfig(width=2)), make_inputs()
    encoded: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0]))

    model(image, embedding)

    torch.testing.assert_close(encoded[0], 2 * image - 1)


@pytest.mark.parametrize("name", MODELS)
def test_training_drops_the_given_share_of_the_bottleneck_and_evaluation_nothing(name: str, make_inputs) -> None:
    torch.manual_seed(0)
    model, inputs = build_model(name, ModelConfig(width=8, dropout=0.3, activation="glu")), make_inputs(64, 64)
    bottlenecks: list[Tensor] = []
    model.dropout.register_forward_hook(lambda module, inputs, output: bottlenecks.append(output.clone()))

    with torch.no_grad():
        model(*inputs)
        model.eval()(*inputs)

    assert bottlenecks[0].shape == (2, 128, 4, 4)
    assert (bottlenecks[0] == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (bottlenecks[1] == 0).sum() == 0


@pytest.mark.parametrize(("name", "deep_supervision"), list(product(MODELS, [False, True])))
def test_forward_is_the_finest_of_the_side_outputs(name: str, deep_supervision: bool, make_inputs) -> None:
    model = build_model(name, ModelConfig(width=2, deep_supervision=deep_supervision)).eval()
    inputs = make_inputs()

    sides = model.outputs(*inputs).sides

    assert [side.shape for side in sides] == [(2, 2, 32, 32)] * (5 if deep_supervision else 1)
    assert torch.equal(model(*inputs), sides[0])


# ---- the options ----


@pytest.mark.parametrize(("name", "option"), list(product(MODELS, OPTIONS)))
def test_an_option_does_not_change_the_other_weights_of_a_seed(name: str, option: str) -> None:
    def weights(**options: object) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(5)
        return build_model(name, ModelConfig(width=2, **options)).state_dict(), torch.rand(3)

    rest = {name: value for name, value in ALL_OPTIONS.items() if name not in OPTIONS[option]}
    for others in ({}, rest):
        (without, after), (with_it, after_it) = weights(**others), weights(**others, **OPTIONS[option])
        assert without.keys() < with_it.keys()
        assert all(torch.equal(with_it[key], value) for key, value in without.items())
        assert torch.equal(after, after_it)


@pytest.mark.parametrize("name", MODELS)
def test_the_distance_head_predicts_a_value_per_pixel(name: str, make_inputs) -> None:
    model = build_model(name, ModelConfig(width=2, instance_head="distance"))
    plain = build_model(name, ModelConfig(width=2))
    inputs = make_inputs(32, 48)

    assert model.outputs(*inputs).distance.shape == (2, 32, 48)
    assert plain.outputs(*inputs).distance is None
    assert plain.outputs(*inputs).presence is None


def with_presence(model: SegmentationModel, logit: float) -> SegmentationModel:
    """Make the branch return the same logit for every image."""
    convolution = model.presence[1]
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.bias, logit)
    return model


def test_the_branch_is_dropout_convolution_and_maximum_of_the_guided_bottleneck(make_inputs, make_lively) -> None:
    model = make_lively(build_model("unet", ModelConfig(width=2, classification_guided=True))).eval()
    image, embedding = make_inputs(64, 64)
    dropout, convolution, *_ = model.presence

    guided = model.fusion(model.encoder(2 * image - 1), embedding)[-1]
    cells = torch.einsum("bchw,c->bhw", guided, convolution.weight[0, :, 0, 0]) + convolution.bias

    assert isinstance(dropout, nn.Dropout)
    torch.testing.assert_close(model.outputs(image, embedding).presence, cells.flatten(1).max(1).values)


@pytest.mark.parametrize("name", MODELS)
def test_an_image_without_nuclei_is_background_everywhere_in_evaluation(name: str, make_inputs) -> None:
    torch.manual_seed(0)
    model = build_model(name, ModelConfig(width=2, **ALL_OPTIONS)).eval()
    inputs = make_inputs()

    present, absent = (with_presence(model, logit).outputs(*inputs) for logit in (0.1, -0.1))

    assert len(absent.sides) == 5
    assert all(side.softmax(1)[:, 1].max() < 1e-8 for side in absent.sides)
    assert not absent.distance.any()
    assert torch.equal(with_presence(model, -0.1)(*inputs), absent.sides[0])
    assert all(side.softmax(1)[:, 1].max() > 0.01 for side in present.sides)
    assert present.distance.any()


def test_each_image_is_suppressed_by_its_own_decision(make_inputs) -> None:
    model = with_presence(build_model("unet", ModelConfig(width=2, classification_guided=True)), 1.0).eval()
    image, embedding = make_inputs()
    both = model(image, embedding)
    model.presence.register_forward_hook(lambda *_: torch.tensor([-1.0, 1.0]))

    suppressed = model(image, embedding)

    assert suppressed[0, 1].max() < suppressed[0, 0].min()
    assert torch.equal(suppressed[1], both[1])


def test_in_training_a_wrong_decision_suppresses_nothing(make_inputs) -> None:
    torch.manual_seed(0)
    model, plain = (
        build_model("unet", ModelConfig(width=2, dropout=0.0, classification_guided=guided)) for guided in (True, False)
    )
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("presence")})

    outputs = with_presence(model, -5.0).outputs(*make_inputs())

    assert torch.equal(outputs.sides[0], plain(*make_inputs()))


def test_the_branch_learns_which_images_have_nuclei() -> None:
    torch.manual_seed(0)
    maps, target = torch.rand(8, 32, 3, 3), torch.zeros(8, 48, 48).long()
    maps[:4, :16, 1, 2], target[:4, 16:32, 32:] = 3, 1
    branch = PresenceHead(32)
    optimiser = torch.optim.Adam(branch.parameters(), lr=0.1)
    for _ in range(40):
        loss = presence_loss(branch(maps), target, torch.zeros_like(target).bool())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    assert (branch.eval()(maps) > 0).tolist() == [True] * 4 + [False] * 4


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "unet9"}, rf"'unet9'.*{', '.join(MODELS)}"),
        ({"fusion": "sum"}, rf"'sum'.*{', '.join(FUSIONS)}"),
        ({"activation": "gelu"}, r"'gelu'.*relu, leaky_relu, swish, glu"),
        ({"instance_head": "star"}, r"'star'.*none, distance"),
        ({"width": 0}, "width.*got 0"),
        ({"dropout": 1.0}, r"dropout.*got 1\.0"),
    ],
)
def test_an_impossible_model_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(str(options.pop("name", "eunet3plus")), ModelConfig(**options))


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
        build_model("eunet3plus", ModelConfig(width=2))(image, embedding)


# ---- guidance by tissue only ----


@pytest.mark.parametrize("fusion", ["concat", "xgfb", "multiscale"])
def test_with_tissue_only_the_embedding_of_glass_does_not_matter(fusion: str, make_lively) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    image[..., 32:] = 0.95
    embedding = torch.randn(1, 256, 64, 64)
    other = embedding + torch.randn(256, 1, 1)
    other[..., 32:] = 3 * torch.randn(1, 256, 64, 32)

    def moved(*, tissue_only: bool) -> float:
        model = make_lively(build_model("unet", ModelConfig(width=2, fusion=fusion, tissue_only=tissue_only))).eval()
        with torch.no_grad():
            return (model(image, embedding) - model(image, other)).abs().max().item()

    assert moved(tissue_only=True) < 0.02 * moved(tissue_only=False)
