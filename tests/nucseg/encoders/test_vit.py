"""Our encoder equals the published ImageEncoderViT."""

import inspect
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from nucseg.encoders import ARCHITECTURES, VitShape
from nucseg.encoders.architectures import ROUNDING, bfloat16_error
from nucseg.encoders.autotune import use_attention
from nucseg.encoders.device import Hardware
from nucseg.encoders.vit import build_vit, expected_tensors, published_image_encoder
from nucseg.errors import EncoderError

SMALL = VitShape(embed_dim=48, depth=4, num_heads=3, global_blocks=(1, 3), window_cells=7)
SAM_VIT_B = VitShape(embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11), window_cells=14)
CPU = torch.device("cpu")


def published_encoder(shape: VitShape, input_px: int) -> torch.nn.Module:
    """Make the published module with SAM's hyperparameters as build_sam.py writes them."""
    module: torch.nn.Module = published_image_encoder().ImageEncoderViT(
        depth=shape.depth,
        embed_dim=shape.embed_dim,
        img_size=input_px,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=shape.num_heads,
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=list(shape.global_blocks),
        window_size=shape.window_cells,
        out_chans=256,
    )
    return module


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """Draw every parameter, so that no term of the network is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.3 if "pos" in name else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if parameter.ndim == 1:
                parameter.add_(1.0 if name.endswith("weight") else 0.0)
    return module.eval()


def an_input(side: int) -> torch.Tensor:
    return torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(1))


def test_in_float32_it_equals_the_published_encoder_on_the_same_tensor() -> None:
    published = drawn(published_encoder(SMALL, 256))
    ours = build_vit(SMALL, published.state_dict(), Hardware(CPU, "float32"), input_px=256)

    with torch.inference_mode():
        expected, found = published(an_input(256)), ours(an_input(256))

    assert expected.shape == (2, 256, 16, 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_at_vit_bs_depth_and_grid_it_equals_the_published_encoder_too() -> None:
    shape = VitShape(embed_dim=24, depth=12, num_heads=2, global_blocks=(2,))
    published = drawn(published_encoder(shape, 1024))
    ours = build_vit(shape, published.state_dict(), Hardware(CPU, "float32"))
    use_attention(ours, "mask", windows=False)

    with torch.inference_mode():
        expected, found = published(an_input(1024)[:1]), ours(an_input(1024)[:1])

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_it_is_the_published_class_from_the_published_file() -> None:
    model = build_vit(SMALL, drawn(published_encoder(SMALL, 1024)).state_dict(), Hardware(CPU, "float32"))

    assert type(model).__name__ == "ImageEncoderViT"
    assert inspect.getfile(type(model)).endswith("segment_anything/modeling/image_encoder.py")
    assert {m.eps for m in model.modules() if hasattr(m, "eps")} == {1e-6}  # torch's own is 1e-5


def test_vit_b_has_the_parameters_of_sams_vit_b() -> None:
    """By build_sam.py, written out; 89,670,912 is the size of SAM's ViT-B image encoder."""
    with torch.device("meta"):
        direct = published_encoder(SAM_VIT_B, 1024)
    ours = expected_tensors(ARCHITECTURES["vit_b"].shape)

    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in direct.state_dict().items()}
    assert sum(tensor.numel() for tensor in ours.values()) == 89_670_912


@pytest.mark.parametrize(("precision", "worst"), [("bfloat16", 0.2), ("float16", 0.02)])
def test_half_precision_stays_near_the_published_float32(precision: str, worst: float) -> None:
    published = drawn(published_encoder(SMALL, 256))
    hardware = Hardware(CPU, precision)
    ours = build_vit(SMALL, published.state_dict(), hardware, input_px=256)

    with torch.inference_mode():
        expected, found = published(an_input(256)), ours(an_input(256).to(hardware.dtype))

    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() / expected.std() < worst


@pytest.mark.parametrize(("depth", "width"), [(12, 48), (3, 96)])
def test_bfloat16_errs_by_no_more_than_its_roundings_explain_and_by_no_less_than_a_tenth(
    depth: int, width: int
) -> None:
    """`bfloat16_error` derives the bound; 12 is ViT-B's depth. No value exceeds six root mean squares."""
    shape = VitShape(embed_dim=width, depth=depth, num_heads=3, global_blocks=(2, 5, 8, 11), window_cells=7)
    published = drawn(published_encoder(shape, 256))
    ours = build_vit(shape, published.state_dict(), Hardware(CPU, "bfloat16"), input_px=256)

    for variant in ("mask", "columns"):
        use_attention(ours, variant, windows=False)
        with torch.inference_mode():
            expected, found = published(an_input(256)), ours(an_input(256).bfloat16())

        error = (found - expected) / expected.std()
        assert bfloat16_error(depth) / 10 < error.square().mean().sqrt() < bfloat16_error(depth)
        assert error.abs().max() < 6 * bfloat16_error(depth)


def test_the_error_of_a_rounding_is_that_of_rounding_numbers_of_all_sizes() -> None:
    x = torch.exp(torch.empty(1_000_000).uniform_(-5, 5, generator=torch.Generator().manual_seed(0)))
    relative = (x.bfloat16().double() - x.double()) / x.double()

    assert relative.square().mean().sqrt() == pytest.approx(ROUNDING, rel=0.01)


def test_in_half_precision_only_the_remaining_norms_stay_float32() -> None:
    state = drawn(published_encoder(SMALL, 256)).state_dict()
    ours = build_vit(SMALL, state, Hardware(CPU, "bfloat16"), input_px=256)

    in_float32 = {name for name, p in ours.named_parameters() if p.dtype == torch.float32}

    assert in_float32 == {f"neck.norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}


def test_the_weights_are_copies_that_outlive_the_checkpoint() -> None:
    state = drawn(published_encoder(SMALL, 256)).state_dict()
    ours = build_vit(SMALL, state, Hardware(CPU, "float32"), input_px=256)
    kept = ours.pos_embed.clone()
    before = ours(an_input(256))
    for tensor in state.values():
        tensor.zero_()

    assert torch.equal(ours.pos_embed, kept)
    assert torch.equal(ours(an_input(256)), before)


def test_building_draws_nothing_from_torchs_random_state() -> None:
    state = drawn(published_encoder(SMALL, 256)).state_dict()
    before = torch.get_rng_state()

    build_vit(SMALL, state, Hardware(CPU, "float32"), input_px=256)

    assert torch.equal(torch.get_rng_state(), before)


def in_a_fresh_interpreter(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_segment_anythings_front_end_and_torchvision_are_not_imported() -> None:
    in_a_fresh_interpreter(
        "import sys; from nucseg.encoders import open_encoder; open_encoder('random', device='cpu')\n"
        "assert 'nucseg.encoders._published.image_encoder' in sys.modules\n"
        "assert not {'torchvision', 'segment_anything'} & set(sys.modules)"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, r"not installed\. `pip install segment-anything==1\.0`"),
        (SimpleNamespace(submodule_search_locations=["/nowhere"]), r"/nowhere/modeling is not a Python package"),
    ],
)
def test_a_missing_segment_anything_is_an_error_with_the_way_out(
    spec: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr("importlib.util.spec_from_file_location", lambda *args, **options: None)
    with pytest.raises(EncoderError, match=message):
        published_image_encoder.__wrapped__()


def test_an_identity_is_known_without_torch() -> None:
    in_a_fresh_interpreter(
        "import sys; from nucseg.encoders import asked_identity\n"
        "from pathlib import Path\n"
        "asked_identity('random'), asked_identity('vit_b', weights=Path(sys.executable))\n"
        "assert not {'torch', 'onnxruntime', 'segment_anything'} & set(sys.modules)"
    )
