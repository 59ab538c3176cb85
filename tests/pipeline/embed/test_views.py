"""Stage one with exact views: what is encoded and stored, and the estimates before it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nucseg_pipeline.embed.stage as stage
from nucseg.data import prepare_image
from nucseg.data.file_entries import FileEntry
from nucseg.encoders import Encoder
from nucseg.errors import ConfigError, DataError
from nucseg.views import views_named
from nucseg_cache import Store, StoreAccessError, ViewDiffers, verify
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.estimate import DiskEstimate, TimeEstimate
from nucseg_pipeline.embed.stage import EmbedResult, embed
from tests.pipeline.embed.checksum_encoder import ChecksumEncoder, expected
from tests.pipeline.embed.small_dataset import files_of, pixels, write_dataset

N_IMAGES = 3
SOFT = 'variants = 2\n[[transform]]\nname = "HEDJitter"\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "slides", N_IMAGES, size=(40, 32), name="{}", darkest=40)


@pytest.fixture
def soft(tmp_path: Path) -> Path:
    (tmp_path / "soft.toml").write_text(SOFT)
    return tmp_path / "soft.toml"


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ChecksumEncoder:
    made = ChecksumEncoder(batch_size=4)
    monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: made)
    return made


def run(folder: Path, on_estimate: Any = lambda estimate: None, **options: Any) -> EmbedResult:
    given = {"dataset": "mine", "source": folder, "encoder": "random", "cache": str(folder.parent / "cache")}
    config = EmbedConfig(**{**given, **options, "views": str(options.get("views", "identity"))})
    return embed(config, lambda done, total, what: None, on_estimate)


def counts(result: EmbedResult) -> dict[str, tuple[int, int]]:
    return {view.name: (view.n_encoded, view.n_embedded) for view in result.views}


def test_each_orientation_is_the_true_embedding_of_the_moved_square(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source, views="d4")

    store = Store.open(result.location)
    assert counts(result) == dict.fromkeys(("identity", *(f"d4-{k}" for k in range(1, 8))), (3, 3))
    assert (result.n_encoded, result.n_embedded) == (24, 3)
    for view in views_named("d4"):
        values, images = store.embeddings(result.key, view.name).read_with_images(range(N_IMAGES))
        assert images is None
        for info, value in zip(store.table, values, strict=True):
            assert np.array_equal(value, expected(view.apply(pixels(source, info.id), info.id)))


def test_a_variant_keeps_the_prepared_image_that_its_embedding_belongs_to(
    source: Path, encoder: ChecksumEncoder, soft: Path
) -> None:
    result = run(source, views=soft)

    store = Store.open(result.location)
    assert list(counts(result)) == ["identity", "soft-1", "soft-2"]
    for view in views_named(str(soft)):
        values, images = store.embeddings(
            result.key, view.name, described=view.described, images=True
        ).read_with_images(range(N_IMAGES))
        for info, value, image in zip(store.table, values, images, strict=True):
            seen = view.apply(pixels(source, info.id), info.id)
            assert np.array_equal(value, expected(seen))
            assert np.array_equal(image, prepare_image(seen))
            assert not np.array_equal(image, store.read_samples([info.row])[0].image)


def test_every_view_is_brought_up_to_date_by_itself(source: Path, encoder: ChecksumEncoder, soft: Path) -> None:
    run(source)
    few = run(source, views=soft, limit=2)
    rest = run(source, views=soft)
    again = run(source, views=soft)

    assert counts(few) == {"identity": (0, 2), "soft-1": (2, 2), "soft-2": (2, 2)}
    assert counts(rest) == {"identity": (0, 3), "soft-1": (1, 3), "soft-2": (1, 3)}
    assert counts(again) == {"identity": (0, 3), "soft-1": (0, 3), "soft-2": (0, 3)}
    assert encoder.n_encoded == 3 + 4 + 2


def test_a_changed_image_and_a_damaged_file_cost_what_they_touch(
    source: Path, encoder: ChecksumEncoder, soft: Path
) -> None:
    result = run(source, views=soft)
    Image.fromarray(255 - pixels(source, "1")).save(source / "images" / "1.png")
    chunk = Path(result.location) / "embeddings" / result.key.hash / "soft-2/image/c/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-9])

    again = run(source, views=soft)

    assert counts(again) == {"identity": (1, 3), "soft-1": (1, 3), "soft-2": (2, 3)}
    assert verify(result.location).findings == ()


def test_an_image_is_decoded_once_for_all_its_views(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source)
    read, decode = [], FileEntry.read_image
    monkeypatch.setattr(FileEntry, "read_image", lambda self: read.append(self.id) or decode(self))

    run(source, views="d4")

    assert read == ["0", "1", "2"]


def test_an_image_that_breaks_meanwhile_is_reported_once_and_all_others_get_their_views(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_then_open(*args: Any, **options: Any) -> Encoder:
        (source / "images" / "1.png").write_bytes(b"no image")
        return encoder

    run(source, encoder="none")
    monkeypatch.setattr(stage, "open_encoder", break_then_open)
    with pytest.raises(DataError, match=r"1 of 3 images could not be used"):
        run(source, views="d4")

    store = Store.open(source.parent / "cache" / "mine.zarr")
    (key,) = store.keys()
    assert all(store.embeddings(key, view).missing() == [1] for view in store.views(key))
    assert len(store.views(key)) == 8


def test_an_edited_recipe_is_refused_before_anything_is_encoded(
    source: Path, encoder: ChecksumEncoder, soft: Path
) -> None:
    run(source, views=soft, limit=1)
    soft.write_text(SOFT + "p = 0.5\n")
    encoder.batches.clear()

    with pytest.raises(ViewDiffers, match=r"view soft-1 (?s:.*)p 1\.0(?s:.*)asked for HEDJitter 1, p 0\.5"):
        run(source, views=soft)

    assert encoder.batches == []


def test_more_variants_of_a_recipe_cost_only_themselves(source: Path, encoder: ChecksumEncoder, soft: Path) -> None:
    run(source, views=soft)
    soft.write_text(SOFT.replace("variants = 2", "variants = 3"))

    known = dict.fromkeys(("identity", "soft-1", "soft-2"), (0, 3))
    assert counts(run(source, views=soft)) == {**known, "soft-3": (3, 3)}


def test_disk_space_is_estimated_before_and_time_once_the_speed_is_known(
    source: Path, encoder: ChecksumEncoder
) -> None:
    first: list[Any] = []
    run(source, first.append)
    estimates: list[tuple[Any, int]] = []
    result = run(source, lambda estimate: estimates.append((estimate, encoder.n_encoded - N_IMAGES)), views="d4")

    (space, n_before), (duration, n_after) = estimates
    n_rows, n_bytes = Store.open(result.location).embeddings(result.key).file_bytes()
    assert isinstance(first[0], DiskEstimate)
    assert (first[0].n_embeddings, first[0].n_bytes) == (3, 3 * 1_800_000)
    assert (space.n_embeddings, space.n_bytes, n_before) == (21, round(21 * n_bytes / n_rows), 0)
    assert space.free_bytes > 0
    assert isinstance(duration, TimeEstimate)
    # two images that warm up, four that are timed, four encoded while these are written
    assert (duration.n_left, n_after) == (15, 10)
    assert encoder.batches == [2, 1, 2, 4, 4, 4, 4, 3]
    assert duration.seconds > 0
    estimates.clear()
    run(source, lambda estimate: estimates.append((estimate, 0)), views="d4")
    assert estimates == []


def test_what_does_not_fit_is_refused_before_anything_is_encoded(
    source: Path, encoder: ChecksumEncoder, soft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * 1_800_000 + 6 * (1_800_000 + 256 * 256 * 3)
    for free, fits in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if fits:
            assert run(source, views=soft).n_encoded == 9
        else:
            with pytest.raises(
                StoreAccessError, match=r"9 missing embeddings .* 16\.6 MiB, but only 16\.6 MiB are free"
            ):
                run(source, views=soft)
            assert encoder.batches == []


def test_views_need_an_encoder_and_a_name_that_is_known(source: Path, encoder: ChecksumEncoder) -> None:
    with pytest.raises(ConfigError, match="encoder none embeds nothing"):
        run(source, views="d4", encoder="none")
    with pytest.raises(ConfigError, match="no views 'd5'"):
        run(source, views="d5")

    assert not (source.parent / "cache").exists()


def test_the_command_line_says_what_was_done_for_each_view(source: Path, encoder: ChecksumEncoder, soft: Path) -> None:
    given = ["embed", "--dataset", "mine", "--source", str(source), "--cache", str(source.parent / "cache")]

    done = CliRunner().invoke(app, [*given, "--encoder", "random", "--views", str(soft)])
    info = CliRunner().invoke(app, ["cache", "info", str(source.parent / "cache" / "mine.zarr")])

    assert done.exit_code == 0, done.output
    assert "9 embeddings to make, about 16.6 MiB on disk; " in done.stdout
    assert "for the 6 that are left" in done.stdout
    assert "  soft-2: 3 encoded, 3 embedded\n" in done.stdout
    assert [line.split("/")[1].split(":")[0] for line in info.stdout.splitlines() if " embeddings, " in line] == [
        "identity", "soft-1", "soft-2",
    ]  # fmt: skip


def test_killed_and_concurrent_runs_end_bit_equal_to_an_undisturbed_one(
    soft: Path, instant_encoder: str, tmp_path: Path
) -> None:
    n_images = 10
    source = write_dataset(tmp_path / "slides", n_images)
    soft.write_text(SOFT.replace("variants = 2", "variants = 1"))
    alone = run(source, cache=str(tmp_path / "alone"), encoder=instant_encoder, threads=1, views=soft)
    command = [sys.executable, "-m", "nucseg_pipeline", "embed", "--dataset", "mine", "--source", source, "--threads",
               "1", "--encoder", instant_encoder, "--cache", tmp_path / "cut", "--views", soft]  # fmt: skip
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    images = tmp_path / "cut" / "mine.zarr" / "embeddings"
    while killed.poll() is None and not list(images.glob("*/soft-1/image/c/*")):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it had finished before it could be killed"

    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    here = run(source, cache=str(tmp_path / "cut"), encoder=instant_encoder, threads=1, views=soft)
    printed, _ = other.communicate()

    n_encoded = here.n_encoded + sum(map(int, re.findall(r"^(\d+) encoded", printed, re.MULTILINE)))
    assert other.returncode == 0
    assert 0 < n_encoded <= n_images, "the unchanged images and the first variant were there"
    assert files_of(here.location) == files_of(alone.location)
    assert verify(here.location).findings == ()
