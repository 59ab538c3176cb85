"""Runs, stores and embeddings that are drawn instead of trained, and reports on them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import Key, SampleRow
from nucseg_pipeline.config import ReportConfig, TrainConfig
from nucseg_pipeline.modelling.inference import Prediction
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.report import stage
from nucseg_pipeline.report.stage import ReportResult, report

SIDE, N_IMAGES = 48, 6


VOID = frozenset({"meta", "img", "br", "input"})


def nuclei_row(number: int) -> SampleRow:
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    instances = np.zeros((SIDE, SIDE), np.int32)
    for disc in range(1, 5):
        centre_y, centre_x = rng.integers(5, SIDE - 9, 2)
        instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 25] = disc
    return SampleRow(
        id=f"organ/<image> [{number}]",
        group=f"slide {number // 2}",
        stratum=f"organ {number % 2}",
        mpp=None,
        size=(SIDE, SIDE),
        image=rng.normal((190, 110, 180), 25, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8),
        instances=instances,
        ignore=y >= SIDE - 4,
        image_digest=number.to_bytes(32, "big"),
        mask_digest=number.to_bytes(32, "big"),
    )


ROWS = {row.id: row for row in map(nuclei_row, range(N_IMAGES))}


def digests(row: SampleRow) -> tuple[str, str]:
    return row.image_digest.hex(), row.mask_digest.hex()


def drawn_store(dataset: str) -> SimpleNamespace:
    """The part of a store that a report uses."""
    table = [row.info(number) for number, row in enumerate(ROWS.values())]
    return SimpleNamespace(
        dataset=dataset, preparation={"side_px": str(SIDE)}, location=f"cache/{dataset}.zarr", source="", table=table,
        notes=("left out: one",), find=lambda asked: Key({**asked, "format": "f16"}),
        embeddings=lambda key: DrawnEmbeddings(), row_of=list(ROWS).index,
        info=lambda row: table[row], read_samples=lambda rows: [list(ROWS.values())[row] for row in rows],
    )  # fmt: skip


class DrawnEmbeddings:
    """Embeddings that show the nuclei, on a grid of SIDE / 4 cells a side."""

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        drawn = [list(ROWS.values())[row] for row in rows]
        cells = [(row.instances > 0)[::4, ::4] for row in drawn]
        noise = [np.random.default_rng(row.image_digest[-1]).normal(size=(5, *cells[0].shape)) for row in drawn]
        return [
            np.concatenate([grid[None], rough]).astype(np.float16) for grid, rough in zip(cells, noise, strict=True)
        ]


class DrawnRun:
    """The part of a run that a report uses; its network predicts the truth with a given amount of error."""

    def __init__(
        self,
        name: str,
        *,
        error: float,
        dataset: str = "nuinsseg",
        ids: Sequence[str] = tuple(ROWS),
        fold: int = 0,
        seed: int = 0,
        learned: str = "aa",
    ) -> None:
        self.error = error
        self.config = TrainConfig(
            dataset=dataset, cache="cache", fusion="xgfb" if error < 1 else "none", fold=fold, seed=seed
        )
        self.split = SimpleNamespace(
            train=("a",), validation=("b",), test=tuple(ids), protocol="official", notes=("slides leak",)
        )
        self.store = drawn_store(dataset)
        self.inputs = SimpleNamespace(
            embedding={"architecture": "vit_b"},
            preparation=self.store.preparation,
            native_px=SIDE,
            mpp=0.0,
            samples={"a": (learned, ""), "b": ("bb", ""), **{image_id: digests(row) for image_id, row in ROWS.items()}},
        )
        self.rule = InstanceRule(threshold=0.5, min_area_px=4)
        self.history = [{"epoch": 1.0, "train_loss": 0.9, "validation_dice": 0.5, "seconds": 1.0}]
        self.provenance = {"embedding": {"architecture": "vit_b", "weights": "6923"}, "versions": {"torch": "2"}}

    def rows(self, ids: Sequence[str], *, store: object) -> None:
        """Every embedding is there."""

    def probability(self, sample: SampleRow) -> np.ndarray:
        rough = np.random.default_rng(sample.image_digest[-1]).standard_normal((SIDE, SIDE))
        mask = ndimage.gaussian_filter((sample.instances > 0).astype(float), 0.7)
        return np.clip(mask + self.error * ndimage.gaussian_filter(rough, 2), 0, 1).astype(np.float32)

    def predict(self, ids: Sequence[str], *, store: object, device: str) -> Iterator[Prediction]:
        for image_id in ids:
            yield Prediction(ROWS[image_id], self.probability(ROWS[image_id]))


Report = Callable[..., ReportResult]


def drawn_report(
    folder: Path,
    runs: dict[str, DrawnRun],
    progress: Progress = lambda *_: None,
    *,
    page: bool = False,
    **wanted: object,
) -> ReportResult:
    """Report on drawn runs, given by name; the page is written only if `page`, because it takes longest."""
    given: dict[str, object] = {"out": folder / "report", "n_resamples": 300, "n_images": 0}
    config = ReportConfig(runs=tuple(folder / name for name in runs), **{**given, **wanted})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "Run", SimpleNamespace(open=lambda path, cache: runs[path.name]))
        if not page:
            patch.setattr(stage, "page_text", lambda summary, columns, gallery: "".join("" for _ in gallery.images))
        return report(config, progress)


def two_runs() -> dict[str, DrawnRun]:
    return {"guided": DrawnRun("guided", error=0.8), "unguided": DrawnRun("unguided", error=2.0)}


def folds() -> dict[str, DrawnRun]:
    """Two configurations, each on two folds of three images, the guided one with a second seed."""
    first, second = list(ROWS)[:3], list(ROWS)[3:]
    return {
        "guided-f0": DrawnRun("", error=0.8, ids=first),
        "guided-f1": DrawnRun("", error=0.8, ids=second, fold=1),
        "guided-f0-s1": DrawnRun("", error=0.9, ids=first, seed=1),
        "unguided-f0": DrawnRun("", error=2.0, ids=first),
        "unguided-f1": DrawnRun("", error=2.0, ids=second, fold=1),
    }


class Page(HTMLParser):
    """Collects the elements and words of a page, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_data(result: ReportResult) -> dict[str, Any]:
    """The JSON that the script of the page reads."""
    (text,) = re.findall('(?s)<script type="application/json" id="data">(.*?)</script>', result.page.read_text())
    data: dict[str, Any] = json.loads(text)
    return data
