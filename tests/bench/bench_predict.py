"""A whole slide through `nucseg predict`: peak memory, time, and whether results depend on how it is tiled.

    python tests/bench/bench_predict.py [--side 10000] [--encoder instant|random|onnx:FILE] [--run RUN]

Without --run a small network is trained on drawn images first. The slide is a tiled pyramid, written block by block
from the images of NuInsSeg in $NUCSEG_SHARED, otherwise from drawn images, with stripes of glass. Memory is the VmHWM
of a separate process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
import tifffile

from nucseg.data import open_dataset
from nucseg.data.slides import open_slide
from nucseg.data.synthetic import synthetic_dataset
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.predict.nuclei import bands
from nucseg_pipeline.predict.predictor import Predictor
from nucseg_pipeline.predict.probability_maps import map_rows
from nucseg_pipeline.train.stage import train

TILE_PX = 512

SHIFTS = {
    "no shift": ((0, 0), (0, 0)),
    "tiles shifted by 57 and 101 network px": ((57, 101), (0, 0)),
    "blocks shifted by 333 and 500 px": ((0, 0), (333, 500)),
}
"""(rows, columns) by which the tiles and the blocks are shifted."""

CHILD = """
import sys, time
from pathlib import Path
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.predict.stage import predict
begin = time.perf_counter()
result = predict(PredictConfig(images=(Path(sys.argv[1]),), run=Path(sys.argv[2]), out=Path(sys.argv[3]), threads=2))
assert not result.failures, result.failures
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024, time.perf_counter() - begin)
"""


def tile_images(n: int) -> list[np.ndarray]:
    """Images of TILE_PX per side, real ones if they exist."""
    real = Path(os.environ.get("NUCSEG_SHARED", "../shared")) / "data" / "nuinsseg"
    if not real.is_dir():
        return [entry.read_image()[0] for entry in synthetic_dataset(n, side_px=TILE_PX, seed=7).entries]
    entries = open_dataset("nuinsseg", real).entries
    return [entries[i].read_image()[0] for i in np.linspace(0, len(entries) - 1, n).astype(int)]


def write_slide(file: Path, side_px: int, *, n_images: int = 24) -> Path:
    """Write a pyramid of images block by block; every eighth column of blocks is glass."""
    tile, images = TILE_PX, tile_images(n_images)
    n = -(-side_px // tile)
    chosen = np.random.default_rng(0).integers(0, n_images, (n, n))

    def tiles(reduced: int) -> Iterator[np.ndarray]:
        """Tiles of a level, each of reduced x reduced blocks."""
        for row in range(-(-n // reduced)):
            for column in range(-(-n // reduced)):
                pixels = np.full((tile, tile, 3), 243, np.uint8)
                size = tile // reduced
                for i, j in np.ndindex(reduced, reduced):
                    y, x = row * reduced + i, column * reduced + j
                    if y < n and x < n and x % 8 != 5:
                        block = images[chosen[y, x]].reshape(size, reduced, size, reduced, 3).mean((1, 3))
                        pixels[i * size : (i + 1) * size, j * size : (j + 1) * size] = block
                yield pixels

    options = {"tile": (tile, tile), "photometric": "rgb", "compression": "zlib", "dtype": np.uint8, "maxworkers": 1}
    with tifffile.TiffWriter(file, ome=True) as tiff:
        tiff.write(
            tiles(1), shape=(side_px, side_px, 3), subifds=2,
            metadata={"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, **options,
        )  # fmt: skip
        for reduced in (2, 4):
            side = -(-side_px // reduced)
            tiff.write(tiles(reduced), shape=(side, side, 3), subfiletype=1, metadata=None, **options)
    return file


def train_small(folder: Path, encoder: str) -> Path:
    """Train a small network on drawn images; return its run."""
    embed(
        EmbedConfig(dataset="synthetic", encoder=encoder, cache=str(folder / "cache"), limit=12, threads=1),
        lambda done, total, what: None,
    )
    train(
        TrainConfig(
            dataset="synthetic", cache=str(folder / "cache"), encoder=encoder, fusion="multiscale", width=4, epochs=3,
            batch_size=4, learning_rate=3e-3, schedule="cosine", threads=2, run=folder / "run",
        )
    )  # fmt: skip
    return folder / "run"


def check_agreement(folder: Path) -> str:
    """Compare GeoJSON, table and instance map with one another."""
    features = json.loads((folder / "nuclei.geojson").read_bytes())["features"]
    polygons = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in features])
    areas = np.array([feature["properties"]["measurements"]["area_px2"] for feature in features])
    counted = np.bincount(tifffile.imread(folder / "instances.tif").ravel())
    assert shapely.is_valid(polygons).all()
    assert len(counted) - 1 == len(features) == len((folder / "nuclei.csv").read_text().splitlines()) - 1
    np.testing.assert_array_equal(counted[1:], areas)
    np.testing.assert_array_equal(shapely.area(polygons), areas)
    return f"{len(features)} polygons, all valid, each with the area of its pixels in the instance map"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--encoder", default="instant")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--shifts", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--overlaps", default="0.5", help="comma-separated, for the comparison of shifted grids")
    parser.add_argument("--keep", type=Path, help="folder in which to leave slide and results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        encoder = options.encoder
        if encoder == "instant":
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from instant_encoder import instant_graph

            (folder / "instant.onnx").write_bytes(instant_graph())
            encoder = f"onnx:{folder / 'instant.onnx'}"
        run = options.run or (folder / "run" if (folder / "run").exists() else train_small(folder, encoder))
        start = time.perf_counter()
        slide = write_slide(folder / "slide.ome.tif", options.side)
        size_mb, seconds = slide.stat().st_size / 1e6, time.perf_counter() - start
        print(f"slide: {options.side} px per side, {size_mb:.0f} MB, {seconds:.0f} s")
        child = subprocess.run(
            [sys.executable, "-P", "-c", CHILD, slide, run, folder / "out"], check=True, capture_output=True, text=True
        )
        peak, seconds = map(float, child.stdout.split()[-2:])
        summary = json.loads((folder / "out" / "slide" / "summary.json").read_bytes())
        n_tiles, n_glass = summary["tiles"], summary["tiles_without_tissue"]
        print(f"peak memory: {peak:.0f} MiB; {seconds:.0f} s for {n_tiles} tiles, {n_glass} of them glass")
        print(check_agreement(folder / "out" / "slide"))
        if options.shifts:
            for overlap in map(float, options.overlaps.split(",")):
                compare_shifts(run, slide, overlap)


def compare_shifts(run: Path, slide: Path, overlap: float) -> None:
    """Count nuclei with shifted tiles and blocks."""
    predictor = Predictor.open(run, threads=2, overlap=overlap)
    first = 0
    for what, (tiles, blocks) in SHIFTS.items():
        opened = open_slide(slide)
        tiled = predictor.prediction_for(opened, shift=tiles).tiled
        rows = map_rows(tiled, predictor.tile_model, everything=False, progress=lambda done: None)
        n = sum(len(band.nuclei) for band in bands(tiled, rows, predictor.run.rule, blocks))
        opened.close()
        first = first or n
        print(f"overlap {overlap}, {what}: {n} nuclei ({n / first - 1:+.2%})")


if __name__ == "__main__":
    main()
