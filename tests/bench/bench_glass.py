"""How much glass or black in an image changes what a run finds far from it.

    python tests/bench/bench_glass.py RUN... [--n 8] [--images DIR] [--weights FILE]

A quarter and a half of each image are painted in one grey level up to a straight edge; the side changes from image to
image. Measured at least FAR_PX of the network's pixels away from the edge (64 native pixels of an image of 512):

    kept        nuclear area found with glass, divided by that found without it; mean over images
    Dice        against the true masks, without and with glass; mean over images

An image is one tile, encoded and predicted as `nucseg predict` does it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg.data import prepare
from nucseg.data.sample import Entry, Sample
from nucseg.errors import NucsegError
from nucseg.metrics.overlap import count_pixels, dice
from nucseg.nuclei.instances import foreground
from nucseg.tiling import TileGrid
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.loading.batches import spread_evenly
from nucseg_pipeline.predict.predictor import Predictor
from nucseg_pipeline.predict.tile_model import TileModel

LEVELS, SHARES, FAR_PX = (245, 200, 0), (0.25, 0.5), 32

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def glass_mask(size: tuple[int, int], share: float, side: int) -> Mask:
    """(H, W) bool, True on this share of an image of size (H, W): right, top, left or bottom."""
    height, width = size if side % 2 == 0 else size[::-1]
    covered = np.zeros((height, width), np.bool_)
    covered[:, width - round(share * width) :] = True
    return np.rot90(covered, side)


def far_mask(size: tuple[int, int], share: float, side: int, side_px: int) -> Mask:
    """(side_px, side_px) bool, the prepared pixels of an image that are at least FAR_PX from its glass."""
    wider = share + FAR_PX / side_px * max(size) / (size[1] if side % 2 == 0 else size[0])
    near = glass_mask(size, wider, side).astype(np.int32)
    prepared = prepare(np.zeros((*size, 3), np.uint8), near, np.zeros(size, np.bool_), side_px=side_px)
    return (prepared.instances == 0) & ~prepared.ignore


def found_nuclei(predictor: Predictor, images: Sequence[Image]) -> list[Mask]:
    """(side_px, side_px) bool of images of one size: where the probability is above the run's threshold."""
    tile_model: TileModel = predictor.tile_model
    height, width = images[0].shape[:2]
    tile_px, side_px = max(height, width), tile_model.side_px
    (tile,) = TileGrid(size=(height, width), tile_px=tile_px, side_px=side_px).row(0)
    found = np.zeros((len(images), side_px, side_px), np.bool_)
    for mask, maps in zip(found, tile_model.maps([tile] * len(images), images, tile_px), strict=True):
        mask[: tile.to_h, : tile.to_w] = foreground(maps[0], predictor.run.rule)
    return list(found)


def measure(predictor: Predictor, sample: Sample, side: int) -> dict[tuple[int, float], tuple[float, float, float]]:
    """(level, share) -> kept area, Dice without and with glass, of one image; NaN where nothing is found or true."""
    size, side_px = (sample.image.shape[0], sample.image.shape[1]), predictor.tile_model.side_px
    truth = prepare(sample.image, sample.instances, sample.ignore, side_px=side_px)
    cases = [(level, share) for level in LEVELS for share in SHARES]
    painted = [
        np.where(glass_mask(size, share, side)[..., np.newaxis], np.uint8(level), sample.image)
        for level, share in cases
    ]  # fmt: skip
    before, *after = found_nuclei(predictor, [sample.image, *painted])
    measured = {}
    for (level, share), found in zip(cases, after, strict=True):
        far = far_mask(size, share, side, side_px) & ~truth.ignore
        n_before = np.count_nonzero(before & far)
        kept = np.count_nonzero(found & far) / n_before if n_before else np.nan
        is_true = (truth.instances > 0) & far
        dices = [dice(count_pixels(is_true, mask, ~far)) if is_true.any() else np.nan for mask in (before, found)]
        measured[level, share] = (kept, dices[0], dices[1])
    return measured


def chosen_entries(predictor: Predictor, images: Path | None, n: int) -> list[Entry]:
    """Images of the run's test part, or of a folder of images and masks, spread evenly."""
    inputs = predictor.run.inputs
    if images is not None:
        return spread_evenly(open_source("images", images).entries, n)
    chosen = set(spread_evenly(predictor.run.split.test, n))
    return [entry for entry in open_source(inputs.dataset, None, inputs.source).entries if entry.id in chosen]


def main() -> None:
    """Measure and print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--n", type=int, default=8, help="number of images")
    parser.add_argument("--images", type=Path, help="folder of images and masks, instead of the test part")
    parser.add_argument("--weights", type=Path, help="of the encoder, as in nucseg predict")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for path in options.runs:
        predictor = Predictor.open(path, weights=options.weights, threads=options.threads)
        entries = chosen_entries(predictor, options.images, options.n)
        rows = [measure(predictor, entry.read()[0], side % 4) for side, entry in enumerate(entries)]
        print(f"\n{predictor.run.name}, {len(rows)} images\nglass  share   kept   Dice far without -> with glass")
        for level, share in rows[0]:
            kept, without, with_glass = np.nanmean([row[level, share] for row in rows], axis=0)
            change = f"({with_glass - without:+.3f})"
            print(f"{level:5}   {share:.2f}  {kept:5.3f}   {without:.3f} -> {with_glass:.3f} {change}")


if __name__ == "__main__":
    try:
        main()
    except NucsegError as error:
        sys.exit(f"error: {error}")
