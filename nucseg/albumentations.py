"""Albumentations, imported where it is needed and without a question to the network."""

import os
from types import ModuleType


def load_albumentations() -> ModuleType:
    """The library; it asks the network for its newest version unless told not to before it is imported."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    library: ModuleType = albumentations
    return library
