"""Frozen SAM-family image encoders: uint8 RGB images in, (B, 256, 64, 64) embeddings out.

An encoder is named by a spec: `vit_b`, `vit_l`, `vit_h` (published checkpoints), `onnx:FILE` (any exported
encoder of the family), `random` or `random:SEED` (no knowledge, for tests and demonstrations).
"""

from nucseg.encoders.architectures import ARCHITECTURES, EMBEDDING_SHAPE, PublishedVit, VitShape
from nucseg.encoders.base import Encoder, guard
from nucseg.encoders.finding import open_recorded
from nucseg.encoders.opening import asked_identity, check_asked, encoder_names, open_encoder
from nucseg.encoders.weights import weights_folders

__all__ = [
    "ARCHITECTURES",
    "EMBEDDING_SHAPE",
    "Encoder",
    "PublishedVit",
    "VitShape",
    "asked_identity",
    "check_asked",
    "encoder_names",
    "guard",
    "open_encoder",
    "open_recorded",
    "weights_folders",
]
