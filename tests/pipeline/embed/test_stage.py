"""Stage one against folders of real files: what it encodes, what it leaves, and what it says."""

import errno
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr.storage._local as zarr_local
from PIL import Image

import nucseg_pipeline.embed.stage as stage
from nucseg.data.files import FileEntry
from nucseg.encoders import Encoder
from nucseg.encoders.preprocess import resize
from nucseg.errors import ConfigError, DataError
from nucseg_cache import Store, StoreAccessError, StoreExists, verify
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import EmbedResult, embed
from nucseg_pipeline.embed.sync import READERS

N_IMAGES = 5


class ChecksumEncoder(Encoder):
    """An encoder whose embedding can be foretold: each channel is the image's checksum plus the cell's number.

    The checksum is of the image in the encoder's size, so that it may be brought to that size beforehand.
    """

    identity = {"architecture": "checksum", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 2

    def __init__(self) -> None:
        self.n_encoded = 0

    def run(self, images: Sequence[Any]) -> Any:
        self.n_encoded += len(images)
        return np.stack([expected(image) for image in images])

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


def expected(image: Any) -> Any:
    cells = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 4096
    return np.broadcast_to(zlib.crc32(resize(image).tobytes()) / 2**32 + cells, (256, 64, 64)).astype(np.float16)


def draw(folder: Path, n_images: int = N_IMAGES) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(n_images):
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(folder / "images" / f"n [{i}] ü.png")
        mask = np.zeros((40, 32), np.uint8)
        mask[5:12, 3:9], mask[20:30, 20:28] = 1, 2 + i
        Image.fromarray(mask).save(folder / "masks" / f"n [{i}] ü.png")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return draw(tmp_path / "my slides")


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ChecksumEncoder:
    made = ChecksumEncoder()
    monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: made)
    return made


def run(folder: Path, **options: Any) -> EmbedResult:
    config = {"dataset": "mine", "source": folder, "encoder": "random", "cache": str(folder.parent / "cache")}
    return embed(EmbedConfig(**{**config, **options}), lambda done, total, what: None)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def repaint(file: Path) -> None:
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(file)


def test_every_image_gets_the_embedding_of_its_native_pixels(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)

    store = Store.open(result.location)
    values = store.embeddings(result.key).read(range(N_IMAGES))
    assert result.n_encoded == result.n_embedded == N_IMAGES
    for info, value in zip(store.table, values, strict=True):
        with Image.open(source / "images" / f"{info.id}.png") as image:
            assert np.array_equal(value, expected(np.array(image)))


def test_a_second_run_encodes_nothing_and_changes_no_byte(source: Path, encoder: ChecksumEncoder) -> None:
    first = run(source)
    before = files_of(Path(first.location))

    again = run(source)

    assert (again.n_encoded, again.n_embedded, encoder.n_encoded) == (0, N_IMAGES, N_IMAGES)
    assert files_of(Path(first.location)) == before


def test_one_changed_pixel_costs_one_encoding_and_touches_no_other_row(source: Path, encoder: ChecksumEncoder) -> None:
    first = run(source)
    rows = Path(first.location) / "embeddings" / first.key.hash / "identity" / "values" / "c"
    before = files_of(rows)

    repaint(source / "images" / "n [2] ü.png")
    again = run(source)

    changed = {name for name, content in files_of(rows).items() if content != before[name]}
    assert (again.n_encoded, again.synchronised.changed) == (1, 1)
    assert changed == {"2/0/0/0"}


def test_a_changed_mask_costs_no_encoding_and_is_stored(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    mask = np.zeros((40, 32), np.uint8)
    mask[1:39, 1:31] = 7
    Image.fromarray(mask).save(source / "masks" / "n [1] ü.png")

    again = run(source)

    assert (again.n_encoded, again.synchronised.changed) == (0, 1)
    assert Store.open(location).read_samples([1])[0].instances.max() == 7


def test_a_new_image_costs_one_encoding_and_old_rows_keep_their_numbers(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    before = [(info.row, info.id) for info in Store.open(location).table]
    for kind in ("images", "masks"):
        shutil.copy(source / kind / "n [0] ü.png", source / kind / "a first by name.png")
    repaint(source / "images" / "a first by name.png")

    again = run(source)

    rows = [(info.row, info.id) for info in Store.open(location).table]
    assert (again.n_encoded, again.synchronised.new) == (1, 1)
    assert rows == [*before, (N_IMAGES, "a first by name")]


def test_a_vanished_image_is_absent_and_costs_nothing_when_it_returns(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    gone = source / "images" / "n [3] ü.png"
    gone.rename(source / "elsewhere.png")

    without = run(source)
    absent = [info.id for info in Store.open(location).table if not info.present]
    (source / "elsewhere.png").rename(gone)
    back = run(source)

    assert without.synchronised.n_images == N_IMAGES - 1
    assert (without.synchronised.vanished, absent) == (1, ["n [3] ü"])
    assert (back.synchronised.returned, back.n_encoded, back.n_embedded) == (1, 0, N_IMAGES)


def test_a_limit_embeds_the_first_images_and_calls_none_vanished(source: Path, encoder: ChecksumEncoder) -> None:
    few = run(source, limit=2)
    all_ = run(source)

    assert (few.n_encoded, few.synchronised.vanished) == (2, 0)
    assert (all_.n_encoded, all_.n_embedded) == (N_IMAGES - 2, N_IMAGES)


def test_images_and_masks_alone_cost_no_encoding_and_can_be_embedded_later(
    source: Path, encoder: ChecksumEncoder
) -> None:
    alone = run(source, encoder="none")

    store = Store.open(alone.location)
    assert (alone.key, alone.n_encoded, encoder.n_encoded) == (None, 0, 0)
    assert (len(store.table), list(store.keys())) == (N_IMAGES, [])
    assert run(source).n_encoded == N_IMAGES


def test_an_image_that_cannot_be_read_is_told_without_an_encoder_too(source: Path, encoder: ChecksumEncoder) -> None:
    next((source / "images").iterdir()).write_bytes(b"no image")

    with pytest.raises(DataError, match=rf"(?s)1 of {N_IMAGES} images.*The other {N_IMAGES - 1} are in "):
        run(source, encoder="none")


def test_another_format_lives_beside_the_first(source: Path, encoder: ChecksumEncoder) -> None:
    half = run(source)
    eighth = run(source, format="i8")

    store = Store.open(half.location)
    assert {key.hash for key in store.keys()} == {half.key.hash, eighth.key.hash}  # noqa: SIM118 - no dictionary
    assert half.key.hash != eighth.key.hash
    assert np.allclose(
        store.embeddings(half.key).read([0]), store.embeddings(eighth.key).read([0]), atol=2 / 254, rtol=2**-11
    )


def test_the_store_remembers_its_source(source: Path, encoder: ChecksumEncoder) -> None:
    run(source)

    assert run(source, source=None).n_embedded == N_IMAGES


def test_a_damaged_copy_is_not_where_the_next_run_looks(source: Path, encoder: ChecksumEncoder) -> None:
    run(source)
    copy = source.parent / "copy"
    shutil.copytree(source, copy)
    first, second, *_ = sorted((copy / "images").iterdir())
    first.write_bytes(b"cut short")
    second.unlink()
    (copy / "masks" / second.name).unlink()

    with pytest.raises(DataError, match=r"1 of 4 images could not be used(?s:.*)1 more that the store holds"):
        run(copy)

    back = run(source, source=None)
    assert (back.synchronised.n_images, back.n_encoded, back.n_embedded) == (N_IMAGES, 0, N_IMAGES)


def test_an_image_that_cannot_be_decoded_is_named_and_all_others_are_embedded(
    source: Path, encoder: ChecksumEncoder
) -> None:
    (source / "images" / "n [1] ü.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")

    with pytest.raises(DataError, match=r"1 of 5 images could not be used(?s:.*)n \[1\] ü\.png(?s:.*)other 4"):
        run(source)

    store = Store.open(source.parent / "cache" / "mine.zarr")
    key = store.keys()[0]
    assert "n [1] ü" not in {info.id for info in store.table}
    assert store.embeddings(key).missing() == []


def test_an_image_of_which_nothing_would_be_left_is_named_and_all_others_are_embedded(
    source: Path, encoder: ChecksumEncoder
) -> None:
    Image.fromarray(np.zeros((4000, 1, 3), np.uint8)).save(source / "images" / "n [2] ü.png")
    Image.fromarray(np.zeros((4000, 1), np.uint8)).save(source / "masks" / "n [2] ü.png")
    with pytest.raises(DataError, match=r"(?s)1 of 5 images.*n \[2\] ü: .*no pixel left.*The other 4 are embedded"):
        run(source)


def test_an_image_that_breaks_later_is_not_trained_on_and_comes_back_mended(
    source: Path, encoder: ChecksumEncoder
) -> None:
    location = run(source).location
    file = source / "images" / "n [1] ü.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:60])

    with pytest.raises(DataError, match=r"n \[1\] ü"):
        run(source)
    present = {info.id for info in Store.open(location).table if info.present}
    file.write_bytes(whole)

    assert "n [1] ü" not in present
    assert (run(source).n_encoded, encoder.n_encoded) == (0, N_IMAGES)


def test_an_image_that_changes_after_it_was_prepared_is_not_stored_under_the_old_digest(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = stage.open_encoder

    def change_then_open(*args: Any, **options: Any) -> Encoder:
        repaint(source / "images" / "n [4] ü.png")
        return opened(*args, **options)

    monkeypatch.setattr(stage, "open_encoder", change_then_open)
    with pytest.raises(DataError, match=r"n \[4\] ü was changed while it was being embedded"):
        run(source)
    monkeypatch.setattr(stage, "open_encoder", opened)

    assert run(source).n_encoded == 1


def test_a_store_is_not_emptied_by_another_data_sets_folder(
    source: Path, encoder: ChecksumEncoder, tmp_path: Path
) -> None:
    run(source)
    other = draw(tmp_path / "other", 2)
    for file in [*other.glob("images/*"), *other.glob("masks/*")]:
        file.rename(file.with_name(f"other {file.name}"))

    with pytest.raises(DataError, match="none of them is among"):
        run(other, cache=str(source.parent / "cache"))


def test_a_flipped_bit_in_an_embedding_costs_one_encoding(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)
    undisturbed = files_of(Path(result.location))
    chunk = Path(result.location) / "embeddings" / result.key.hash / "identity/values/c/3/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)

    found = verify(result.location)
    again = run(source)

    assert [finding.bad.id for finding in found.findings] == ["n [3] ü"]
    assert again.n_encoded == 1
    assert files_of(Path(result.location)) == undisturbed


@pytest.mark.parametrize("array", ["image", "instances", "ignore"])
def test_pixels_that_verify_has_found_damaged_are_prepared_anew_without_encoding(
    source: Path, encoder: ChecksumEncoder, array: str
) -> None:
    result = run(source)
    undisturbed = files_of(Path(result.location))
    chunk = next((Path(result.location) / f"samples/{array}/c/3").rglob("0/0"))
    chunk = chunk if chunk.is_file() else chunk / "0"
    content = bytearray(chunk.read_bytes())
    content[-9] ^= 1
    chunk.write_bytes(content)

    found = verify(result.location)
    again = run(source)

    assert [(finding.what, finding.bad.id) for finding in found.findings] == [("samples", "n [3] ü")]
    assert (again.synchronised.mended, again.n_encoded) == (1, 0)
    assert files_of(Path(result.location)) == undisturbed


@pytest.mark.parametrize("array", ["id", "group", "image_digest", "record"])
def test_damaged_descriptions_are_mended_without_encoding(source: Path, encoder: ChecksumEncoder, array: str) -> None:
    result = run(source)
    undisturbed = files_of(Path(result.location))
    chunk = next(file for file in (Path(result.location) / "samples" / array / "c").rglob("*") if file.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)

    again = run(source)

    assert (again.synchronised.mended, again.n_encoded) == (N_IMAGES, 0)
    assert files_of(Path(result.location)) == undisturbed


def test_a_limit_gives_no_damaged_row_beyond_it_up(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)
    undisturbed = files_of(Path(result.location))
    os.truncate(Path(result.location) / "samples/image/c/4/0/0/0", 100)

    few = run(source, limit=2)
    again = run(source)

    assert (few.synchronised.mended, again.synchronised.mended, again.n_encoded) == (0, 1, 0)
    assert files_of(Path(result.location)) == undisturbed


def test_a_sample_whose_file_was_truncated_is_prepared_anew(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)
    undisturbed = files_of(Path(result.location))
    os.truncate(Path(result.location) / "samples/image/c/2/0/0/0", 100)

    again = run(source)

    assert (again.synchronised.mended, again.n_encoded) == (1, 0)
    assert files_of(Path(result.location)) == undisturbed


def test_a_full_disk_is_told_and_what_was_finished_is_kept(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = files_of(Path(run(source, cache=str(source.parent / "undisturbed")).location))
    put, n_writes = zarr_local._put, 0

    def put_until_full(path: Path, *args: Any, **options: Any) -> Any:
        nonlocal n_writes
        n_writes += "values/c" in str(path)
        if n_writes > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(path, *args, **options)

    monkeypatch.setattr(zarr_local, "_put", put_until_full)
    with pytest.raises(StoreAccessError, match=r"No space left on device.*Free some space.*Finished work is kept"):
        run(source)
    monkeypatch.setattr(zarr_local, "_put", put)

    again = run(source)
    assert again.n_encoded == N_IMAGES - 2  # one batch of two was finished
    assert files_of(Path(again.location)) == undisturbed


@pytest.mark.parametrize("step", ["digests", "read"])
def test_an_interrupt_waits_for_what_was_begun_and_begins_no_more(
    tmp_path: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder, begun = draw(tmp_path / "many", 64), []
    work, what = getattr(FileEntry, step), {"digests": "comparing with the store", "read": "preparing new images"}[step]

    def slow(entry: FileEntry) -> Any:
        begun.append(entry.id)
        time.sleep(0.05)
        return work(entry)

    def interrupt(done: int, total: int, doing: str) -> None:
        if doing == what:
            raise KeyboardInterrupt

    monkeypatch.setattr(FileEntry, step, slow)
    config = EmbedConfig(dataset="mine", source=folder, encoder="random", cache=str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        embed(config, interrupt)

    assert len(begun) <= 3 * READERS


def test_a_cache_that_cannot_be_written_is_told(source: Path, encoder: ChecksumEncoder) -> None:
    file = source.parent / "a file"
    file.write_text("")

    with pytest.raises(StoreAccessError, match=r"a file.*--cache"):
        run(source, cache=str(file))


def test_a_folder_that_is_no_store_is_left_alone(source: Path, encoder: ChecksumEncoder) -> None:
    precious = source.parent / "cache" / "mine.zarr" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("chapter 1")

    with pytest.raises(StoreExists, match=r"mine\.zarr already exists"):
        run(source)

    assert precious.read_text() == "chapter 1"


def test_an_unknown_data_set_lists_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path))

    with pytest.raises(ConfigError, match=r"'nuinseg'; looked in .*nuinseg.*none of the known data sets.*--source"):
        run(tmp_path, dataset="nuinseg", source=None)


@pytest.mark.parametrize("name", ["nuinsseg", "conic@macenko"])
def test_a_known_data_set_that_is_nowhere_names_what_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path))

    with pytest.raises(ConfigError, match=rf"`nucseg fetch {name.partition('@')[0]}` gets it\. Or name the folder"):
        run(tmp_path, dataset=name, source=None)
