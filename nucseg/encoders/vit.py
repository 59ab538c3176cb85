"""segment_anything's own ImageEncoderViT: found, built from given weights, made fast."""

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
from nucseg.encoders.attention import fuse_attention
from nucseg.encoders.device import Hardware
from nucseg.errors import EncoderError

PUBLISHED = "nucseg.encoders._published"
"""Name under which the published modules are imported: below their own, the front end would import torchvision."""


@cache
def published_image_encoder() -> ModuleType:
    """Import segment_anything's modeling/image_encoder.py without running the package's front end.

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
        raise EncoderError(f"{folder} holds no Python package. Install segment-anything 1.0 again.")
    sys.modules[PUBLISHED] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PUBLISHED])
    return importlib.import_module(f"{PUBLISHED}.image_encoder")


def build_published(shape: VitShape, *, input_px: int = INPUT_PX) -> nn.Module:
    """Make the published ImageEncoderViT with SAM's hyperparameters (build_sam.py, `_build_sam`)."""
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
    """Names and shapes of an encoder's weights, as tensors without contents."""
    with torch.device("meta"):
        return build_published(shape).state_dict()


def build_vit(
    shape: VitShape, state: Mapping[str, Tensor], hardware: Hardware, *, input_px: int = INPUT_PX
) -> nn.Module:
    """Make the encoder that computes: the published one on copies of `state`, with fused attention.

    Shapes:
        reads    (B, 3, input_px, input_px)   in the hardware's precision
        returns  (B, 256, G, G) float32, G = input_px / 16
    """
    with torch.device("meta"):  # no time lost on initial values, no random state touched
        model = build_published(shape, input_px=input_px)
    norms = _norms(model)
    in_float32 = tuple(f"{name}." for name in norms)
    copies = {
        key: tensor.to(hardware.device, torch.float32 if key.startswith(in_float32) else hardware.dtype, copy=True)
        for key, tensor in state.items()
    }
    model.load_state_dict(copies, assign=True)
    fuse_attention(model, published_image_encoder().get_rel_pos)
    last = next(reversed(norms))
    for name, norm in norms.items():
        # the last norm's output leaves the network: rounding it would only lose digits
        model.set_submodule(name, Float32Norm(norm, torch.float32 if name == last else hardware.dtype))
    return model.eval().requires_grad_(False)


class Float32Norm(nn.Module):
    """A norm computed in float32 inside a network of lower precision; half precision overflows in it."""

    def __init__(self, norm: nn.Module, out_dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = norm
        self.out_dtype = out_dtype

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of any shape the norm takes."""
        result: Tensor = self.norm(x.float()).to(self.out_dtype)
        return result


def _norms(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.LayerNorm, published_image_encoder().LayerNorm2d)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
