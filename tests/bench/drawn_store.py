"""Random samples and embeddings for benchmarks that compress like real ones."""

from collections.abc import Iterable

import numpy as np

from nucseg_cache import SampleRow


def draw_samples(numbers: Iterable[int], side_px: int) -> list[SampleRow]:
    """Samples of discs on a smooth background."""
    y, x = np.mgrid[:side_px, :side_px]
    samples = []
    for number in numbers:
        random = np.random.default_rng(number)
        instances = np.zeros((side_px, side_px), np.int32)
        for nucleus in range(1, 60):
            centre_y, centre_x = random.integers(0, side_px, 2)
            instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < random.integers(20, 80)] = nucleus
        ground = np.kron(random.integers(90, 200, (side_px // 8, side_px // 8, 3)), np.ones((8, 8, 1)))
        image = (ground + random.integers(-12, 12, ground.shape) - 60 * (instances > 0)[..., None]).clip(0, 255)
        samples.append(
            SampleRow(
                id=f"organ {number % 31}/image {number:06d}",
                group=f"slide {number // 20}",
                stratum=f"organ {number % 31}",
                mpp=0.25,
                size=(512, 512),
                image=image.astype(np.uint8),
                instances=instances,
                ignore=np.zeros((side_px, side_px), np.bool_),
                image_digest=random.bytes(32),
                mask_digest=random.bytes(32),
            )
        )
    return samples


def draw_embeddings(numbers: Iterable[int]) -> np.ndarray:
    """(n, 256, 64, 64) float32: every channel has its own mean and spread, smooth and noisy parts, and outliers."""
    rows = []
    for number in numbers:
        random = np.random.default_rng((7, number))
        smooth = np.kron(random.normal(size=(256, 16, 16)), np.ones((4, 4)))
        noise = random.standard_t(5, size=(256, 64, 64))
        spread = 0.04 * random.lognormal(0, 0.3, (256, 1, 1))
        rows.append((random.normal(0, 0.1, (256, 1, 1)) + spread * (0.7 * smooth + 0.7 * noise)).astype(np.float32))
    return np.stack(rows)
