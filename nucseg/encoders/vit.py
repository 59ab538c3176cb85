"""Find segment_anything's ImageEncoderViT, build it from given weights, and replace its parts by faster ones."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from nucseg.encoders.architectures import EMBEDDING_SHAPE, INPUT_PX, PATCH_PX, VitShape
from nucseg.encoders.blocks import Block
from nucseg.encoders.device import Hardware
from nucseg.encoders.stem_and_neck import Neck, PatchEmbedding
from nucseg.errors import EncoderError

PUBLISHED = "nucseg.encoders._published"
"""Name under which the published modules are imported; under their own name, the package would import torchvision."""


@cache
def published_image_encoder() -> ModuleType:
    """Import segment_anything's modeling/image_encoder.py without running the package's `__init__`.

    Raises:
        EncoderError: segment-anything is not installed.
    """
    package = importlib.util.find_spec("segment_anything")  # finds it, does not run it
    if package is None or not package.submodule_search_locations:
        raise EncoderError("segment-anything is not installed. `pip install segment-anything==1.0`.")
    folder = Path(package.submodule_search_locations[0]) / "modeling"
    spec = importlib.util.spec_from_file_location(
        PUBLISHED, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise EncoderError(f"{folder} is not a Python package. Install segment-anything 1.0 again.")
    sys.modules[PUBLISHED] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PUBLISHED])
    return importlib.import_module(f"{PUBLISHED}.image_encoder")


def build_published(shape: VitShape, *, input_px: int = INPUT_PX) -> nn.Module:
    """Build the published ImageEncoderViT with SAM's hyperparameters (build_sam.py, `_build_sam`)."""
    model: nn.Module = published_image_encoder().ImageEncoderViT(
        img_size=input_px,
        patch_size=PATCH_PX,
        embed_dim=shape.embed_dim,
        depth=shape.depth,
        num_heads=shape.num_heads,
        mlp_ratio=4,
        out_chans=EMBEDDING_SHAPE[0],
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=shape.window_cells,
        global_attn_indexes=shape.global_blocks,
    )
    return model


def expected_tensors(shape: VitShape) -> dict[str, Tensor]:
    """Names and shapes of an encoder's weights, as tensors on the meta device."""
    with torch.device("meta"):
        return build_published(shape).state_dict()


def build_vit(
    shape: VitShape, state: Mapping[str, Tensor], hardware: Hardware, *, input_px: int = INPUT_PX
) -> nn.Module:
    """Build our encoder: the published one with copies of the weights in `state`, its parts replaced by faster ones.

    Shapes:
        reads    (B, 3, input_px, input_px)   in the hardware's precision
        returns  (B, 256, G, G) float32, G = input_px / 16
    """
    published = published_image_encoder()
    with torch.device("meta"):  # spends no time on initial values and leaves the random state alone
        model = build_published(shape, input_px=input_px)
    model.load_state_dict(dict(state), assign=True)
    grid = (input_px // PATCH_PX, input_px // PATCH_PX)
    with torch.no_grad():
        blocks = [Block(block, grid, published.get_rel_pos) for block in model.get_submodule("blocks").children()]
    model.set_submodule("patch_embed", PatchEmbedding(model.get_submodule("patch_embed")))
    model.set_submodule("blocks", nn.ModuleList(blocks))
    model.set_submodule("neck", Neck(model.get_submodule("neck")))
    _move(model, hardware)
    return model.eval().requires_grad_(False)


def _move(model: nn.Module, hardware: Hardware) -> None:
    """Copy every parameter to the device in its precision; the remaining norms stay float32."""
    norms = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _norm_class()))
    for name, parameter in model.named_parameters():
        dtype = torch.float32 if name.startswith(norms) else hardware.dtype
        parameter.data = parameter.data.to(hardware.device, dtype, copy=True)
    model.to(hardware.device)  # the buffers


def _norm_class() -> type[nn.Module]:
    norm: type[nn.Module] = published_image_encoder().LayerNorm2d
    return norm
