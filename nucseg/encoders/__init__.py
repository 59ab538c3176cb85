"""Frozen SAM-family image encoders: uint8 RGB images in, (B, 256, 64, 64) embeddings out.

An encoder is named by a spec: `vit_b`, `vit_l`, `vit_h` (published checkpoints), `onnx:FILE` (any exported encoder of
the family), `student` or `student:FILE` (a small network distilled from one of them; the first comes with the
package), `random` or `random:SEED` (random weights, for tests and demonstrations).
"""

from nucseg.encoders.architectures import ARCHITECTURES, EMBEDDING_SHAPE, PublishedVit, VitShape
from nucseg.encoders.base import Encoder, guard
from nucseg.encoders.factory import (
    asked_identity,
    check_encoder,
    check_spec,
    encoder_names,
    named_file,
    open_encoder,
)
from nucseg.encoders.lookup import images_learned, open_recorded
from nucseg.encoders.weights import weights_folders

__all__ = [
    "ARCHITECTURES",
    "EMBEDDING_SHAPE",
    "Encoder",
    "PublishedVit",
    "VitShape",
    "asked_identity",
    "check_encoder",
    "check_spec",
    "encoder_names",
    "guard",
    "images_learned",
    "named_file",
    "open_encoder",
    "open_recorded",
    "weights_folders",
]
