"""A run whose network finds dark nuclei."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nucseg.data import prepare, stain_identity, synthetic_dataset
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import SampleRow, Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.run import TrainedRun
from nucseg_pipeline.train.stage import train


class Darkness(torch.nn.Module):
    """Finds nuclei: pixels that are dark in red and have dark surroundings, which the border of a tile cuts off."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = torch.nn.Parameter(torch.tensor(0.5))

    def outputs(self, image: torch.Tensor, embedding: torch.Tensor | None) -> Any:
        dark = 1 - image[:, 0]
        around = torch.nn.functional.avg_pool2d(dark[:, None], 7, 1, 3)[:, 0]
        logit = 20 * (0.7 * dark + 0.3 * around - self.limit)
        return SimpleNamespace(sides=[torch.stack([-logit / 2, logit / 2], 1)], distance=None)


def trained_on(place: Path, **preparation: str) -> Path:
    """A run without guidance in a folder, on images of 128 pixels prepared at 64."""
    rows = []
    for number, entry in enumerate(synthetic_dataset(6, side_px=128).entries):
        sample = entry.read()[0]
        prepared = prepare(sample.image, sample.instances, sample.ignore, side_px=64)
        row = SampleRow(
            id=str(number), group=str(number), stratum="drawn", mpp=None, size=prepared.size, image=prepared.image,
            instances=prepared.instances, ignore=prepared.ignore, image_digest=bytes([number] * 32),
            mask_digest=bytes(32),
        )  # fmt: skip
        rows.append(row)
    prepared_as = {"side_px": "64", **stain_identity("none"), **preparation}
    Store.create(place / "cache" / "mine.zarr", dataset="mine", source="drawn", preparation=prepared_as, rows=rows)
    config = TrainConfig(
        dataset="mine", fusion="none", cache=str(place / "cache"), run=place / "run", width=4, epochs=1, batch_size=2,
        device="cpu", threads=1,
    )  # fmt: skip
    train(config)
    return place / "run"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 8-bit images; tests must not change it."""
    return trained_on(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def darkness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network of every run, because those of the tests were trained too briefly to find nuclei."""
    monkeypatch.setattr(TrainedRun, "network", lambda self: Darkness())
    monkeypatch.setattr(RunFolder, "rule", lambda self: InstanceRule())


@pytest.fixture
def dark_run(trained_run: Path, darkness: None) -> Path:
    """The run, with a network that finds dark nuclei whatever it was trained on."""
    return trained_run


@pytest.fixture
def dark_run_on_converted_images(dark_run: Path, tmp_path: Path) -> Path:
    """The same for a run that was trained on images converted to 8 bits."""
    return trained_on(tmp_path, convert="full-range")
