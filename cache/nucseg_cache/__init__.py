"""The cache: prepared samples and their embeddings in a Zarr store. ../README.md describes the format."""

from nucseg_cache.arrays import BLOCK_ROWS
from nucseg_cache.embeddings import Embeddings
from nucseg_cache.errors import (
    BadRow,
    CacheError,
    EmbeddingNotFound,
    RowDamaged,
    StoreAccessError,
    StoreDamaged,
    StoreExists,
    StoreFormatError,
    StoreNotFound,
    UnstorableEmbedding,
    UnstorableSample,
    ViewDiffers,
)
from nucseg_cache.formats import FORMATS
from nucseg_cache.key import Key, differences, label
from nucseg_cache.layout import FORMAT
from nucseg_cache.rows import RowInfo, SampleRow
from nucseg_cache.store import Store
from nucseg_cache.verify import Finding, Pruning, Verification, prune, verify

__all__ = [
    "BLOCK_ROWS",
    "FORMAT",
    "FORMATS",
    "BadRow",
    "CacheError",
    "EmbeddingNotFound",
    "Embeddings",
    "Finding",
    "Key",
    "Pruning",
    "RowDamaged",
    "RowInfo",
    "SampleRow",
    "Store",
    "StoreAccessError",
    "StoreDamaged",
    "StoreExists",
    "StoreFormatError",
    "StoreNotFound",
    "UnstorableEmbedding",
    "UnstorableSample",
    "Verification",
    "ViewDiffers",
    "differences",
    "label",
    "prune",
    "verify",
]
