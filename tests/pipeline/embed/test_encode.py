"""Reading, encoding and writing overlap within limits, and nothing is lost if one of them fails."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nucseg_pipeline.embed.stage as stage
from nucseg.errors import EncoderError
from nucseg_cache import Embeddings, Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.encode import READ_AHEAD, rounded
from nucseg_pipeline.embed.stage import EmbedResult, embed
from tests.pipeline.embed.checksum_encoder import ChecksumEncoder, expected
from tests.pipeline.embed.small_dataset import pixels, write_dataset

N_IMAGES, BATCH = 12, 2
TIMEOUT_S = 20.0


class WatchedEncoder(ChecksumEncoder):
    """Counts the images it resizes, and calls `on_batch` with the number of the batch before it encodes one."""

    def __init__(self) -> None:
        super().__init__(BATCH)
        self.on_batch: Callable[[int], None] = lambda number: None
        self.resized: list[Any] = []

    def resize(self, image: Any) -> Any:
        self.resized.append(image)
        return super().resize(image)

    def run(self, images: Sequence[Any]) -> Any:
        self.on_batch(len(self.batches))
        return super().run(images)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "slides", N_IMAGES)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> WatchedEncoder:
    made = WatchedEncoder()
    monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: made)
    return made


def run(source: Path) -> EmbedResult:
    config = EmbedConfig(dataset="mine", source=source, encoder="random", cache=str(source.parent / "cache"))
    return embed(config, lambda done, total, what: None)


def until(condition: Callable[[], bool], what: str) -> None:
    waited = threading.Event()
    for _ in range(int(TIMEOUT_S / 0.02)):
        if condition():
            return
        waited.wait(0.02)
    raise AssertionError(f"waited {TIMEOUT_S} s for {what}")


def rows_there(source: Path) -> int:
    store = Store.open(source.parent / "cache" / "mine.zarr")
    return sum(len(store.embeddings(key).embedded_rows()) for key in store.keys())  # noqa: SIM118


def test_the_next_images_are_read_while_a_batch_is_encoded(source: Path, encoder: WatchedEncoder) -> None:
    def wait(number: int) -> None:
        n_images = min((number + 1 + READ_AHEAD) * BATCH, N_IMAGES)
        until(lambda: len(encoder.resized) >= n_images, f"{n_images} images to be read during batch {number}")

    encoder.on_batch = wait
    assert run(source).n_encoded == N_IMAGES


def test_no_more_images_are_read_ahead_than_the_limit(source: Path, encoder: WatchedEncoder) -> None:
    def check(number: int) -> None:
        threading.Event().wait(0.05)
        assert len(encoder.resized) <= (number + 1 + READ_AHEAD) * BATCH

    encoder.on_batch = check
    assert run(source).n_encoded == N_IMAGES


def test_a_batch_is_written_while_the_next_is_encoded(source: Path, encoder: WatchedEncoder) -> None:
    encoder.on_batch = lambda number: until(
        lambda: rows_there(source) == number * BATCH, f"batch {number - 1} to be there during batch {number}"
    )
    result = run(source)
    store = Store.open(result.location)
    for info, value in zip(store.table, store.embeddings(result.key).read(range(N_IMAGES)), strict=True):
        np.testing.assert_array_equal(value, expected(pixels(source, info.id)))


@pytest.mark.parametrize("fault", ["encoder", "guard", "write"])
def test_what_fails_loses_no_batch_before_it_and_frees_the_block(
    source: Path, encoder: WatchedEncoder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write, run_encoder, calls = Embeddings.write, encoder.run, []

    def failing_write(self: Embeddings, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 3:
            raise OSError("no more")
        write(self, *given)

    def failing_run(images: Sequence[Any]) -> Any:
        if fault == "encoder" and len(encoder.batches) == 2:
            encoder.batches.append(0)
            raise EncoderError("no more")
        values = run_encoder(images)
        if fault == "guard" and len(encoder.batches) == 3:
            values[1, 7, 8, 9] = np.nan
        return values

    monkeypatch.setattr(encoder, "run", failing_run)
    if fault == "write":
        monkeypatch.setattr(Embeddings, "write", failing_write)
    with pytest.raises((EncoderError, OSError), match=r"no more|image 1 of the batch .* not finite"):
        run(source)
    assert rows_there(source) == 2 * BATCH
    assert run(source).n_encoded == N_IMAGES - 2 * BATCH


def test_values_are_rounded_as_numpy_rounds_them() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 1 << 20, dtype=np.uint32)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2  # where a tie is to be broken
    drawn = bits.view(np.float32)
    every = np.concatenate([drawn[np.isfinite(drawn)], halves, -halves, between, -between])
    values = every[np.abs(every) <= 65504].reshape(1, -1)
    assert values.size > 1 << 19
    assert rounded(values, "f16").dtype == np.float16
    np.testing.assert_array_equal(rounded(values, "f16").view(np.uint16), values.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize(("values", "storage"), [([1e6, 1.0], "f16"), ([-1e6, 1.0], "f16"), ([0.1, 0.2], "f32")])
def test_what_half_precision_does_not_hold_or_is_not_wanted_in_it_stays_as_it_is(
    values: list[float], storage: str
) -> None:
    given = np.array(values, np.float32)
    assert rounded(given, storage) is given


def test_a_value_that_is_not_finite_reaches_the_store_to_be_refused() -> None:
    for broken in (np.nan, np.inf):
        assert not np.isfinite(rounded(np.array([broken, 1], np.float32), "f16")).all()
