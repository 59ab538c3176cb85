"""What a network that expects normalised images gets of a slide with artefacts."""

import numpy as np

from nucseg.data import synthetic_dataset
from nucseg.data.slides import ArraySlide
from nucseg.tiling import TileGrid
from nucseg_pipeline.predict.probability_maps import TiledSlide, map_rows


class RecordingModel:
    """A network that finds nothing and keeps the tiles that it gets."""

    stain, side_px, n_maps, batch_size = "white", 64, 1, 2

    def __init__(self) -> None:
        self.regions: list[np.ndarray] = []

    def maps(self, tiles, regions, tile_px) -> list[np.ndarray]:
        self.regions += regions
        return [np.zeros((1, tile.to_h, tile.to_w), np.float32) for tile in tiles]


def test_glass_and_artefacts_get_one_white() -> None:
    image = synthetic_dataset(1, side_px=128).entries[0].read_image()[0]
    image[:, 90:] = 215 - np.random.default_rng(0).integers(0, 2, (128, 38, 1))
    image[:60, :30] = 0
    model = RecordingModel()
    tiled = TiledSlide(ArraySlide(image), TileGrid(size=(128, 128), tile_px=128, side_px=64), 0.25)

    list(map_rows(tiled, model, everything=False, progress=lambda done: None, kept=None))

    (region,) = model.regions
    assert (region[:55, :25] == 240).all()
    assert np.abs(region[:, 100:].astype(int) - 240).max() <= 2
