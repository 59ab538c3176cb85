"""Stage one on folders of files: what it reads, encodes and keeps, and its messages."""

import errno
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from zarr.storage import LocalStore

import nucseg_pipeline.embed.stage as stage
from nucseg.data.file_entries import FileEntry
from nucseg.encoders import Encoder
from nucseg.errors import ConfigError, DataError, EncoderError
from nucseg.views.registry import D4_VIEWS
from nucseg_cache import Embeddings, RowDamaged, Store, StoreAccessError, StoreExists, verify
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import EmbedResult, embed
from nucseg_pipeline.embed.sync import READERS
from tests.pipeline.embed.checksum_encoder import ChecksumEncoder, expected
from tests.pipeline.embed.small_dataset import files_of, pixels, write_dataset

N_IMAGES = 5
NAME = "n [{}] ü"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "my slides", N_IMAGES, size=(40, 32), name=NAME)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ChecksumEncoder:
    made = ChecksumEncoder()
    monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: made)
    return made


@pytest.fixture(scope="session")
def audited_opens() -> list[str]:
    """Paths of all files that this process opens, as the interpreter reports them."""
    paths: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        # an open() with an opener is reported twice, by os.open without a mode
        if event == "open" and isinstance(arguments[0], str) and arguments[1] is not None:
            paths.append(arguments[0])

    sys.addaudithook(audit)  # it cannot be removed again
    return paths


@pytest.fixture
def opened(audited_opens: list[str], source: Path) -> Callable[[], Counter[str]]:
    """How often each image and mask of the data set was opened."""
    audited_opens.clear()
    return lambda: Counter(
        str(Path(path).relative_to(source)) for path in audited_opens if Path(path).is_relative_to(source)
    )


def run(folder: Path, progress: Any = lambda done, total, what: None, **options: Any) -> EmbedResult:
    config = {"dataset": "mine", "source": folder, "encoder": "random", "cache": str(folder.parent / "cache")}
    return embed(EmbedConfig(**{**config, **options}), progress)


def repaint(file: Path) -> None:
    image = pixels(file.parents[1], file.stem)
    image[0, 0] = 255 - image[0, 0]
    Image.fromarray(image).save(file)


def in_two_steps(source: Path, cache: Path, **options: Any) -> EmbedResult:
    """Store the images first and embed them by another call, which has to read them again."""
    run(source, cache=str(cache), encoder="none")
    return run(source, cache=str(cache), **options)


def test_every_image_gets_the_embedding_of_its_native_pixels(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)

    store = Store.open(result.location)
    values = store.embeddings(result.key).read(range(N_IMAGES))
    assert result.n_encoded == result.n_embedded == N_IMAGES
    for info, value in zip(store.table, values, strict=True):
        assert np.array_equal(value, expected(pixels(source, info.id)))


def test_a_new_image_is_read_once_for_digest_sample_and_embeddings(
    source: Path, encoder: ChecksumEncoder, opened: Callable[[], Counter[str]], tmp_path: Path
) -> None:
    at_once = run(source, views="d4")

    assert opened() == {str(file.relative_to(source)): 1 for file in source.rglob("*.png")}
    in_steps = in_two_steps(source, tmp_path / "steps", views="d4")
    assert max(opened().values()) > 2
    assert files_of(at_once.location) == files_of(in_steps.location)


def test_images_that_exceed_the_memory_limit_are_read_a_second_time(
    source: Path,
    encoder: ChecksumEncoder,
    opened: Callable[[], Counter[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "MAX_DECODED_BYTES", 3 * 40 * 32 * 3 - 1)  # room for two images

    limited = run(source)

    counts = [n for file, n in opened().items() if file.startswith("images")]
    assert sorted(counts) == [1, 1, 2, 2, 2]
    assert files_of(limited.location) == files_of(in_two_steps(source, tmp_path / "steps").location)


def test_a_second_run_encodes_nothing_and_changes_no_byte(source: Path, encoder: ChecksumEncoder) -> None:
    first = run(source)
    before = files_of(first.location)

    again = run(source)

    assert (again.n_encoded, again.n_embedded, encoder.n_encoded) == (0, N_IMAGES, N_IMAGES)
    assert files_of(first.location) == before


def test_one_changed_pixel_costs_one_encoding_and_touches_no_other_row(source: Path, encoder: ChecksumEncoder) -> None:
    first = run(source)
    rows = Path(first.location) / "embeddings" / first.key.hash / "identity" / "values" / "c"
    before = files_of(rows)

    repaint(source / "images" / "n [2] ü.png")
    again = run(source)

    changed = {name for name, content in files_of(rows).items() if content != before[name]}
    assert (again.n_encoded, again.sync.changed) == (1, 1)
    assert changed == {"2/0/0/0"}


def test_a_changed_mask_costs_no_encoding_and_is_stored(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    mask = np.zeros((40, 32), np.uint8)
    mask[1:20, 1:31] = 7
    Image.fromarray(mask).save(source / "masks" / "n [1] ü.png")

    again = run(source)

    assert (again.n_encoded, again.sync.changed) == (0, 1)
    assert Store.open(location).read_samples([1])[0].instances.max() == 7


def notes_on_masks(location: str) -> tuple[str, ...]:
    return tuple(note for note in Store.open(location).notes if " masks " in note)


def test_what_is_found_in_masks_is_noted_and_kept_up_to_date(source: Path) -> None:
    first = run(source, encoder="none")
    assert notes_on_masks(first.location) == tuple(note for note in first.notes if " masks " in note)
    assert notes_on_masks(first.location)[0].startswith("5 of 5 masks are binary: 5 pieces; touching nuclei are one")

    assert run(source, encoder="none").notes == first.notes  # although nothing was read
    shutil.copy(source / "images" / "n [0] ü.png", source / "images" / "new.png")
    three = np.zeros((40, 32), np.uint16)
    three[2:9, 2:9], three[12:19, 2:9], three[22:29, 2:9] = 1, 2, 3
    Image.fromarray(three).save(source / "masks" / "new.png")
    assert notes_on_masks(run(source, encoder="none").location)[0].startswith("5 of 6 masks are binary: 5 pieces")
    assert notes_on_masks(run(source, encoder="none", limit=2).location)[0].startswith("5 of 6 masks are binary")
    Image.fromarray(three).save(source / "masks" / "n [0] ü.png")
    phases: set[str] = set()
    limited = run(source, lambda done, total, what: phases.add(f"{what} {total}"), encoder="none", limit=2)
    assert notes_on_masks(limited.location)[0].startswith("4 of 6 masks are binary: 4 pieces")
    assert "looking at masks 6" in phases
    for mask in (source / "masks").iterdir():
        Image.fromarray(three).save(mask)
    assert notes_on_masks(run(source, encoder="none").location) == ()


def test_a_run_that_is_stopped_before_its_notes_leaves_them_to_the_next_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_samples = stage.sync_samples

    def stop_after(*args: Any) -> Any:
        sync_samples(*args)
        raise KeyboardInterrupt  # the samples are stored, but not yet what was found in their masks

    monkeypatch.setattr(stage, "sync_samples", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(source, encoder="none")
    monkeypatch.setattr(stage, "sync_samples", sync_samples)
    assert "Not all masks have been looked at" in Store.open(f"{source.parent}/cache/mine.zarr").notes[-1]

    location = run(source, encoder="none").location

    assert notes_on_masks(location)[0].startswith("5 of 5 masks are binary: 5 pieces")
    assert not any("was stopped" in note for note in Store.open(location).notes)


def test_a_new_image_costs_one_encoding_and_old_rows_keep_their_numbers(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    before = [(info.row, info.id) for info in Store.open(location).table]
    for kind in ("images", "masks"):
        shutil.copy(source / kind / "n [0] ü.png", source / kind / "a first by name.png")
    repaint(source / "images" / "a first by name.png")

    again = run(source)

    rows = [(info.row, info.id) for info in Store.open(location).table]
    assert (again.n_encoded, again.sync.new) == (1, 1)
    assert rows == [*before, (N_IMAGES, "a first by name")]


def test_a_vanished_image_is_absent_and_costs_nothing_when_it_returns(source: Path, encoder: ChecksumEncoder) -> None:
    location = run(source).location
    gone = source / "images" / "n [3] ü.png"
    gone.rename(source / "elsewhere.png")

    without = run(source)
    absent = [info.id for info in Store.open(location).table if not info.present]
    (source / "elsewhere.png").rename(gone)
    back = run(source)

    assert without.sync.n_images == N_IMAGES - 1
    assert (without.sync.vanished, absent) == (1, ["n [3] ü"])
    assert (back.sync.returned, back.n_encoded, back.n_embedded) == (1, 0, N_IMAGES)


def test_a_limit_embeds_the_first_images_and_calls_none_vanished(source: Path, encoder: ChecksumEncoder) -> None:
    few = run(source, limit=2)
    all_ = run(source)

    assert (few.n_encoded, few.sync.vanished) == (2, 0)
    assert (all_.n_encoded, all_.n_embedded) == (N_IMAGES - 2, N_IMAGES)


def test_images_can_be_stored_without_an_encoder_and_embedded_later(source: Path, encoder: ChecksumEncoder) -> None:
    alone = run(source, encoder="none")

    store = Store.open(alone.location)
    assert (alone.key, alone.n_encoded, encoder.n_encoded) == (None, 0, 0)
    assert (len(store.table), list(store.keys())) == (N_IMAGES, [])
    assert run(source).n_encoded == N_IMAGES


def test_embeddings_in_two_formats_are_stored_side_by_side(source: Path, encoder: ChecksumEncoder) -> None:
    half = run(source)
    eighth = run(source, format="i8")

    store = Store.open(half.location)
    assert {key.hash for key in store.keys()} == {half.key.hash, eighth.key.hash}  # noqa: SIM118 - no dictionary
    assert half.key.hash != eighth.key.hash
    assert np.allclose(
        store.embeddings(half.key).read([0]), store.embeddings(eighth.key).read([0]), atol=2 / 254, rtol=2**-11
    )


def test_a_damaged_copy_is_not_where_the_next_run_looks(source: Path, encoder: ChecksumEncoder) -> None:
    run(source)
    copy = source.parent / "copy"
    shutil.copytree(source, copy)
    first, second, *_ = sorted((copy / "images").iterdir())
    first.write_bytes(b"cut short")
    second.unlink()
    (copy / "masks" / second.name).unlink()

    with pytest.raises(DataError, match=r"1 of 4 images could not be used(?s:.*)1 more images of the store"):
        run(copy)

    back = run(source, source=None)
    assert (back.sync.n_images, back.n_encoded, back.n_embedded) == (N_IMAGES, 0, N_IMAGES)


def test_images_that_cannot_be_used_are_named_and_all_others_are_embedded(
    source: Path, encoder: ChecksumEncoder
) -> None:
    (source / "images" / "n [1] ü.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    Image.fromarray(np.zeros((4000, 1, 3), np.uint8)).save(source / "images" / "n [2] ü.png")
    Image.fromarray(np.zeros((4000, 1), np.uint8)).save(source / "masks" / "n [2] ü.png")

    with pytest.raises(DataError, match=r"(?s)2 of 5 images could not be used.*The other 3 are in "):
        run(source, encoder="none")
    with pytest.raises(DataError, match=r"(?s)n \[1\] ü\.png.*n \[2\] ü: .*no pixel left.*The other 3 are embedded"):
        run(source)

    store = Store.open(source.parent / "cache" / "mine.zarr")
    key = store.keys()[0]
    assert {info.id for info in store.table} == {"n [0] ü", "n [3] ü", "n [4] ü"}
    assert store.embeddings(key).missing() == []


def test_an_image_that_breaks_later_is_absent_until_it_is_repaired(source: Path, encoder: ChecksumEncoder) -> None:
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


@pytest.fixture
def changing(source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time that the encoder is opened, after the samples were prepared, an image changes."""

    def change_then_open(*args: Any, **options: Any) -> Encoder:
        monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: encoder)
        repaint(source / "images" / "n [4] ü.png")
        return encoder

    monkeypatch.setattr(stage, "open_encoder", change_then_open)


@pytest.mark.usefixtures("changing")
def test_a_stored_image_that_changes_before_it_is_read_again_is_not_embedded_under_its_old_digest(source: Path) -> None:
    run(source, encoder="none")

    with pytest.raises(DataError, match=r"n \[4\] ü was changed while it was being embedded"):
        run(source)

    assert run(source).n_encoded == 1


@pytest.mark.usefixtures("changing")
def test_a_new_image_that_changes_meanwhile_is_embedded_as_it_was_read_and_again_by_the_next_run(source: Path) -> None:
    before = pixels(source, "n [4] ü")

    first = run(source)
    store = Store.open(first.location)
    assert np.array_equal(store.embeddings(first.key).read([4])[0], expected(before))
    again = run(source)

    assert (first.n_encoded, again.n_encoded, again.sync.changed) == (N_IMAGES, 1, 1)
    store = Store.open(first.location)
    assert np.array_equal(store.embeddings(first.key).read([4])[0], expected(pixels(source, "n [4] ü")))


def test_a_claim_that_is_refused_is_closed_at_once(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, open_claims, refusals = Embeddings.claim, 0, [True, True, False]

    class Claim:
        def __init__(self, embeddings: Embeddings, block: range) -> None:
            self.claim = claim(embeddings, block)

        def __enter__(self) -> bool:
            nonlocal open_claims
            assert open_claims == 0, "the claim that was refused before is still open"
            open_claims += 1
            return self.claim.__enter__() and not refusals.pop(0)

        def __exit__(self, *error: Any) -> None:
            nonlocal open_claims
            open_claims -= 1
            self.claim.__exit__(*error)

    monkeypatch.setattr(Embeddings, "claim", lambda embeddings, block: Claim(embeddings, block))

    assert run(source).n_encoded == N_IMAGES
    assert (refusals, open_claims) == ([], 0)


def test_a_store_is_not_emptied_by_another_data_sets_folder(
    source: Path, encoder: ChecksumEncoder, tmp_path: Path
) -> None:
    run(source)
    other = write_dataset(tmp_path / "other", 2)
    for file in [*other.glob("images/*"), *other.glob("masks/*")]:
        file.rename(file.with_name(f"other {file.name}"))

    with pytest.raises(DataError, match="none of them is among"):
        run(other, cache=str(source.parent / "cache"))


def test_a_flipped_bit_in_an_embedding_costs_one_encoding(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)
    undisturbed = files_of(result.location)
    damage(Path(result.location) / "embeddings" / result.key.hash / "identity/values/c/3/0/0/0")

    found = verify(result.location)
    again = run(source)

    assert [finding.bad.id for finding in found.findings] == ["n [3] ü"]
    assert again.n_encoded == 1
    assert files_of(result.location) == undisturbed


def damage(chunk: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)


def test_a_damaged_row_of_a_view_is_repaired_by_the_advised_command(source: Path, encoder: ChecksumEncoder) -> None:
    done = run(source, views="d4")
    store = Store.open(done.location)
    view = store.embeddings(done.key, D4_VIEWS[2])
    file = Path(done.location) / "embeddings" / done.key.hash / view.view / "values" / "c" / "1" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(RowDamaged, match=r"nucseg embed .* --views d4`"):
        view.read([1])
    verified = CliRunner().invoke(app, ["cache", "verify", done.location])
    assert len(re.findall(r"`nucseg embed .* --views d4`", " ".join(verified.stderr.split()))) == 1
    assert "--encoder none" not in verified.stderr
    assert (run(source).n_encoded, run(source, views="d4").n_encoded) == (0, 1)


@pytest.mark.parametrize("array", ["image", "instances", "ignore"])
def test_pixels_that_verify_has_found_damaged_are_prepared_again_without_encoding(
    source: Path, encoder: ChecksumEncoder, array: str
) -> None:
    result = run(source)
    undisturbed = files_of(result.location)
    damage(next(file for file in (Path(result.location) / f"samples/{array}/c/3").rglob("*") if file.is_file()))

    found = verify(result.location)
    again = run(source)

    assert [(finding.what, finding.bad.id) for finding in found.findings] == [("samples", "n [3] ü")]
    assert (again.sync.repaired, again.n_encoded) == (1, 0)
    assert files_of(result.location) == undisturbed


@pytest.mark.parametrize("array", ["id", "group", "image_digest", "record"])
def test_damaged_descriptions_are_repaired_without_encoding(source: Path, encoder: ChecksumEncoder, array: str) -> None:
    result = run(source)
    undisturbed = files_of(result.location)
    damage(next(file for file in (Path(result.location) / "samples" / array / "c").rglob("*") if file.is_file()))

    again = run(source)

    assert (again.sync.repaired, again.n_encoded) == (N_IMAGES, 0)
    assert files_of(result.location) == undisturbed


def test_damaged_rows_beyond_a_limit_are_left_for_a_run_without_it(source: Path, encoder: ChecksumEncoder) -> None:
    result = run(source)
    undisturbed = files_of(result.location)
    os.truncate(Path(result.location) / "samples/image/c/4/0/0/0", 100)

    few = run(source, limit=2)
    again = run(source)

    assert (few.sync.repaired, again.sync.repaired, again.n_encoded) == (0, 1, 0)
    assert files_of(result.location) == undisturbed


def test_a_full_disk_is_reported_and_what_was_finished_is_kept(
    source: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = files_of(run(source, cache=str(source.parent / "undisturbed")).location)
    n_writes = 0

    class FullStore(LocalStore):
        async def set(self, key: str, value: Any) -> None:
            nonlocal n_writes
            n_writes += "values/c" in key
            if n_writes > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            await super().set(key, value)

    with monkeypatch.context() as patched:
        patched.setattr("nucseg_cache.location.LocalStore", FullStore)
        with pytest.raises(StoreAccessError, match=r"No space left on device.*Free some space.*Finished work is kept"):
            run(source)

    again = run(source)
    assert again.n_encoded == N_IMAGES - 2  # one batch of two was finished
    assert files_of(again.location) == undisturbed


@pytest.mark.parametrize("step", ["digests", "read"])
def test_after_an_interrupt_only_what_was_begun_is_finished(
    tmp_path: Path, encoder: ChecksumEncoder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder, begun = write_dataset(tmp_path / "many", 64), []
    if step == "digests":
        run(folder, encoder="none")  # digests are compared only of images that are stored
    method, what = (
        getattr(FileEntry, step),
        {"digests": "comparing with the store", "read": "preparing new images"}[step],
    )

    def slow(entry: FileEntry) -> Any:
        begun.append(entry.id)
        time.sleep(0.05)
        return method(entry)

    def interrupt(done: int, total: int, doing: str) -> None:
        if doing == what:
            raise KeyboardInterrupt

    monkeypatch.setattr(FileEntry, step, slow)
    with pytest.raises(KeyboardInterrupt):
        run(folder, progress=interrupt)

    assert len(begun) <= 3 * READERS


def test_a_cache_that_cannot_be_written_is_reported(source: Path, encoder: ChecksumEncoder) -> None:
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nuinseg", r"'nuinseg'; looked in .*nuinseg.*none of the known data sets.*--source"),
        ("nuinsseg", r"`nucseg fetch nuinsseg` downloads it\. Or name the folder"),
        ("conic@macenko", r"`nucseg fetch conic` downloads it\. Or name the folder"),
    ],
)
def test_a_data_set_that_is_not_found_is_reported_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path))

    with pytest.raises(ConfigError, match=message):
        run(tmp_path, dataset=name, source=None)
    assert not (tmp_path.parent / "cache").exists()


def test_images_to_check_are_named(tmp_path: Path, encoder: ChecksumEncoder) -> None:
    """micro-sam #1012, and gray or empty images that nobody looked at."""
    folder = write_dataset(tmp_path / "slides", 4, size=(40, 40), darkest=100)
    (folder / "ignore").mkdir()
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "ignore" / "001.png")
    Image.open(folder / "images" / "002.png").convert("L").convert("RGB").save(folder / "images" / "002.png")
    image = np.random.default_rng(0).normal((200, 120, 190), 9, (40, 40, 3)).round().astype(np.uint8)
    for name in ("000.png", "003.png"):
        Image.fromarray(image).save(folder / "images" / name)
        image = image[::-1]

    def assert_named(notes: Sequence[str], n_images: int) -> None:
        assert f"1 of {n_images} images does not look like H&E: 002 (it is gray). Check them." in notes
        assert any(note.startswith(f"Every pixel of 1 of {n_images} images is ignored: 001.") for note in notes)

    assert_named(run(folder).notes, 4)
    assert_named(run(folder).notes, 4)  # although nothing was read
    for kind in ("images", "masks"):
        shutil.copy(folder / kind / "000.png", folder / kind / "new.png")
    assert_named(run(folder).notes, 5)
    assert_named(run(folder, limit=1).notes, 5)
    assert_named(Store.open(tmp_path / "cache" / "mine.zarr").notes, 5)
    for name in ("001", "002"):
        shutil.copy(folder / "images" / "000.png", folder / "images" / f"{name}.png")
        (folder / "ignore" / f"{name}.png").unlink(missing_ok=True)
    assert not [note for note in run(folder).notes if "H&E" in note or "ignored" in note]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"encoder": "vit_b"}, "No weights for vit_b"),
        ({"encoder": "vit_l", "weights": "nowhere.pth"}, "Cannot read weights nowhere.pth"),
        ({"encoder": "vit_b", "weights": "notes.pth"}, "is not a checkpoint"),
        ({"encoder": "student:nowhere.safetensors"}, "Cannot read weights nowhere.safetensors"),
        ({"encoder": "student:notes.pth"}, "is not a safetensors file"),
        ({"encoder": "onnx:nowhere.onnx"}, "Cannot read the ONNX file nowhere.onnx"),
    ],
)
def test_a_missing_or_wrong_encoder_is_reported_before_an_image_is_read(
    source: Path, opened: Callable[[], Counter[str]], wanted: dict[str, Any], message: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    Path("notes.pth").write_text("these are no weights")

    with pytest.raises(EncoderError, match=message):
        run(source, **wanted)

    assert opened() == {}
    assert not (tmp_path / "cache").exists()


def test_a_missing_encoder_is_reported_before_the_images_of_the_data_science_bowl_are_looked_at(
    source: Path, audited_opens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(source))
    for kind in ("images", "masks"):
        (source / "stage1_train" / "a" / kind).mkdir(parents=True)
        shutil.copy(source / kind / "n [0] ü.png", source / "stage1_train" / "a" / kind / "a.png")
    audited_opens.clear()

    with pytest.raises(EncoderError, match="No weights for vit_b"):
        run(source / "stage1_train", dataset="dsb2018", encoder="vit_b")

    assert not [path for path in audited_opens if path.endswith("a.png")]
