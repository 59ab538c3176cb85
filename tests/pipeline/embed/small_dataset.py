"""A folder of noise images with masks, and the content of a store as files."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_dataset(
    folder: Path, n_images: int, size: tuple[int, int] = (16, 16), name: str = "{:03}", darkest: int = 0
) -> Path:
    """Write images/ and masks/ with one nucleus on the diagonal; every image is different."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(n_images):
        image = rng.integers(darkest, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{name.format(i)}.png")
        Image.fromarray(np.eye(*size, dtype=np.uint8)).save(folder / "masks" / f"{name.format(i)}.png")
    return folder


def pixels(source: Path, sample_id: str) -> Any:
    """The image of a sample as another library decodes it."""
    with Image.open(source / "images" / f"{sample_id}.png") as image:
        return np.array(image)


def files_of(folder: Path | str) -> dict[str, bytes]:
    """Content of the files by relative name, without what zarr leaves of a write that was killed."""
    files = (file for file in sorted(Path(folder).rglob("*")) if file.is_file() and file.suffix != ".partial")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
