"""Import Albumentations lazily and without network access."""

import os
from types import ModuleType


def load_albumentations() -> ModuleType:
    """Import the library, with the check for a newer version that it makes over the network switched off."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    library: ModuleType = albumentations
    return library
