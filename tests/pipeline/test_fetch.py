"""Fetching data sets and weights: what is in place afterwards, and what is not when something goes wrong."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import xxhash
from PIL import Image

from nucseg.encoders import ARCHITECTURES, VitShape
from nucseg.encoders.vit import build_published
from nucseg.encoders.weights import find_weights
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.fetch import fetch, instructions, survey
from nucseg_pipeline.fetching.catalogue import CATALOGUE
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.patience import Patience
from nucseg_pipeline.fetching.workplace import workplace

HASTY = Patience(connect_s=1, stall_s=0.3, attempts=2, pause_s=0.01)
RECORD, ARCHIVE, WEIGHTS = "/api/records/1", "/files/NuInsSeg.zip/content", "/sam_vit_b_01ec64.pth"
N_IMAGES = 3


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def tif(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def drawn(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of 32 px, and its instance map of two nuclei."""
    instances = np.zeros((32, 32), np.uint16)
    instances[2:8, 2:8], instances[12:20, 12:20] = 1, 300
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype(np.uint8), instances


def nuinsseg_files() -> dict[str, bytes]:
    """NuInsSeg as it is released, of three images."""
    files: dict[str, bytes] = {}
    for number in range(N_IMAGES):
        image, instances = drawn(number)
        files[f"NuInsSeg/human bladder/tissue images/b_{number}.png"] = png(image)
        files[f"NuInsSeg/human bladder/label masks modify/b_{number}.tif"] = tif(instances)
    return files


def dsb2018_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(N_IMAGES):
        image, instances = drawn(number)
        files[f"id{number}/images/id{number}.png"] = png(image)
        files[f"id{number}/masks/1.png"] = png(((instances == 1) * 255).astype(np.uint8))
    return files


def cryonuseg_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(1, N_IMAGES + 1):
        image, instances = drawn(number)
        files[f"tissue images/Human_Skin_{number:02d}.tif"] = tif(image)
        files[f"Annotator 1 (biologist)/label masks modify/Human_Skin_{number:02d}.tif"] = tif(instances)
    return files


def conic_files() -> dict[str, bytes]:
    arrays = {
        "images.npy": np.zeros((N_IMAGES, 256, 256, 3), np.uint8),
        "labels.npy": np.zeros((N_IMAGES, 256, 256, 2), np.uint16),
    }
    arrays["labels.npy"][:, :9, :9, 0] = 1
    files = {"patch_info.csv": b"patch_info\n" + b"".join(b"consep_%d-0000\n" % n for n in range(N_IMAGES))}
    for name, values in arrays.items():
        file = io.BytesIO()
        np.save(file, values)
        files[name] = file.getvalue()
    return files


MAKERS = {"nuinsseg": nuinsseg_files, "dsb2018": dsb2018_files, "cryonuseg": cryonuseg_files, "conic": conic_files}


def checkpoint() -> bytes:
    """A checkpoint with the keys of a SAM, of a tiny encoder."""
    torch.manual_seed(0)
    file = io.BytesIO()
    state = build_published(TINY).state_dict()
    torch.save({f"image_encoder.{name}": value for name, value in state.items()}, file)
    return file.getvalue()


TINY = VitShape(embed_dim=16, depth=1, num_heads=2, global_blocks=(), window_cells=8)


@dataclass
class Published:
    """What servers publish here: a small NuInsSeg, the H&E part of a small dsb2018, and a small vit_b."""

    server: Any
    answer: Any
    archive: bytes
    weights: bytes

    def serve(self, archive: bytes | None = None, **how: Any) -> None:
        """Publish the NuInsSeg archive, and a record that describes it; `how` the archive is answered."""
        archive = self.archive if archive is None else archive
        link = f"{self.server.address}{ARCHIVE}"
        file = {"key": "NuInsSeg.zip", "size": len(archive), "checksum": f"md5:{hashlib.md5(archive).hexdigest()}"}
        record = {"metadata": {"license": {"id": "cc-by-4.0"}}, "files": [{**file, "links": {"self": link}}]}
        self.server.put(RECORD, self.answer(content=json.dumps(record).encode()))
        self.server.put(ARCHIVE, self.answer(**{"content": archive, **how}))


@pytest.fixture
def published(file_server, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.chdir(tmp_path)
    for variable, name in (("NUCSEG_DATA", "data [sets]"), ("NUCSEG_WEIGHTS", "weights")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Published(file_server, answer, zipped(nuinsseg_files()), checkpoint())
    digest = xxhash.xxh128(made.weights).hexdigest()
    monkeypatch.setitem(ARCHITECTURES, "vit_b", replace(ARCHITECTURES["vit_b"], shape=TINY, file_digest=digest))
    addresses = {
        "nuinsseg": {"record": f"{file_server.address}{RECORD}"},
        "dsb2018": {"url": file_server.put("/stage1_train.zip", answer(content=zipped(dsb2018_files())))},
        "vit_b": {"url": file_server.put(WEIGHTS, answer(content=made.weights)), "digest": f"xxh128:{digest}"},
    }
    for name in MAKERS:
        release = replace(CATALOGUE[name].release, n_images=N_IMAGES)
        addresses.setdefault(name, {})["release"] = release
    for name, changes in addresses.items():
        monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], **changes))
    made.serve()
    return made


@pytest.fixture
def get() -> Callable[..., Any]:
    def run(name: str, given: Path | None = None) -> Any:
        return fetch(name, given, progress=lambda *_: None, patience=HASTY)

    return run


@pytest.fixture
def failed(get) -> Callable[..., str]:
    def run(name: str, given: Path | None = None) -> str:
        with pytest.raises(FetchError) as caught:
            get(name, given)
        return str(caught.value)

    return run


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def left_over(folder: Path) -> list[str]:
    """What is neither in place nor a note."""
    return [one.name for one in folder.iterdir() if one.name.startswith(".") and not one.name.endswith(".fetched.json")]


def test_what_was_fetched_is_found_by_embed_without_more_options(published: Published, get, tmp_path: Path) -> None:
    data, weights = get("nuinsseg"), get("vit_b")

    result = embed(EmbedConfig(dataset="nuinsseg", cache=str(tmp_path / "cache"), device="cpu"), lambda *_: None)

    assert result.n_encoded == N_IMAGES
    assert Store.open(result.location).source == str(data.place)
    assert find_weights("vit_b", None).path == weights.place


def test_a_data_set_is_unpacked_whole_and_says_what_it_was_held_against(
    published: Published, get, tmp_path: Path
) -> None:
    fetched = get("nuinsseg")

    assert fetched.is_new
    assert fetched.place == tmp_path / "data [sets]" / "nuinsseg"
    assert files_in(fetched.place) == nuinsseg_files()
    digest = hashlib.md5(published.archive).hexdigest()
    assert f"md5:{digest} and {len(published.archive)} bytes, as stated by" in fetched.checks[0]
    assert "its licence there: cc-by-4.0" in fetched.checks[0]
    assert fetched.checks[1:] == ("3 images read, with 6 nuclei",)
    note = json.loads((fetched.place.parent / ".nuinsseg.fetched.json").read_text())
    assert note["digest"] == f"md5:{digest}"
    assert note["files"] == 6
    assert left_over(fetched.place.parent) == []


def test_a_data_set_without_a_published_digest_says_so(published: Published, get) -> None:
    fetched = get("dsb2018")

    assert files_in(fetched.place) == dsb2018_files()
    assert fetched.checks[0].startswith("no digest is published: ")


@pytest.mark.parametrize("name", ["nuinsseg", "dsb2018", "vit_b"])
def test_a_second_fetch_changes_nothing_and_asks_nobody(published: Published, get, name: str) -> None:
    first = get(name)
    before = first.place.stat()
    published.server.requests.clear()

    second = get(name)

    assert (second.place, second.is_new) == (first.place, False)
    after = second.place.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert published.server.requests == []


def test_without_a_folder_of_ones_own_data_go_to_the_current_folder(published, get, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NUCSEG_DATA")

    assert get("nuinsseg").place == tmp_path / "data" / "nuinsseg"


def test_what_is_refused_leaves_no_folders_that_were_made_for_it(
    published: Published, failed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "not" / "there"))
    (tmp_path / "empty").mkdir()

    failed("conic", tmp_path / "empty")

    assert not (tmp_path / "not").exists()


def test_an_empty_folder_in_its_place_is_taken(published: Published, get, tmp_path: Path) -> None:
    (tmp_path / "data [sets]" / "nuinsseg").mkdir(parents=True)
    (tmp_path / "data" / "nuinsseg" / "not where embed looks first").mkdir(parents=True)

    assert get("nuinsseg").place == tmp_path / "data [sets]" / "nuinsseg"


def test_a_data_set_that_lost_a_file_since_is_told(published: Published, get, failed) -> None:
    place = get("nuinsseg").place
    next(place.rglob("b_1.tif")).unlink()

    message = failed("nuinsseg")

    assert "no longer what was fetched: 5 files of " in message
    assert f"move {place} away" in message


def test_a_part_of_a_data_set_that_is_there_is_left_alone(published: Published, failed, tmp_path: Path) -> None:
    for name, content in nuinsseg_files().items():
        file = tmp_path / "data [sets]" / "nuinsseg" / name
        if "b_2" not in name:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    assert "holds 2 images, where 3 were published. It can be used as it is" in failed("nuinsseg")
    assert published.server.requests == []


def test_something_else_in_its_place_is_left_alone(published: Published, failed, tmp_path: Path) -> None:
    place = tmp_path / "data [sets]" / "nuinsseg"
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("mine")

    assert "is not NuInsSeg" in (message := failed("nuinsseg"))
    assert f"move {place} away" in message
    assert files_in(place) == {"mine.txt": b"mine"}


def test_a_whole_data_set_that_a_person_put_there_is_as_good(published: Published, get, tmp_path: Path) -> None:
    place = tmp_path / "data [sets]" / "nuinsseg"
    place.mkdir(parents=True)
    zipfile.ZipFile(io.BytesIO(published.archive)).extractall(place)

    assert not get("nuinsseg").is_new
    assert published.server.requests == []
    assert get("nuinsseg", place).checks == ("3 images read, with 6 nuclei",)
    assert "as when fetched" in get("nuinsseg").checks[0]


def test_wrong_weights_are_deleted_and_told_with_both_digests(published: Published, failed, get, tmp_path) -> None:
    wrong = published.weights[:-1] + b"x"
    published.server.put(WEIGHTS, published.answer(content=wrong))

    message = failed("vit_b")

    assert xxhash.xxh128(wrong).hexdigest() in message
    assert xxhash.xxh128(published.weights).hexdigest() in message
    assert "It was deleted. Run `nucseg fetch vit_b` again" in message
    assert list((tmp_path / "weights").iterdir()) == []
    published.server.put(WEIGHTS, published.answer(content=published.weights))
    assert get("vit_b").is_new


def test_wrong_weights_that_are_there_are_told_and_left(published: Published, failed, tmp_path: Path) -> None:
    (tmp_path / "weights" / "sam_vit_b_01ec64.pth").write_bytes(b"tuned")

    assert f"move {tmp_path / 'weights' / 'sam_vit_b_01ec64.pth'} away" in failed("vit_b")
    assert (tmp_path / "weights" / "sam_vit_b_01ec64.pth").read_bytes() == b"tuned"


def test_weights_in_the_users_cache_folder_need_not_come_again(published, get, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nucseg.encoders.weights.user_cache_path", lambda name: tmp_path / "cache")
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "sam_vit_b_01ec64.pth").write_bytes(published.weights)

    assert get("vit_b").place == tmp_path / "cache" / "weights" / "sam_vit_b_01ec64.pth"
    assert published.server.requests == []


def test_an_archive_with_another_digest_than_its_record_is_deleted(
    published: Published, failed, tmp_path: Path
) -> None:
    published.server.put(ARCHIVE, published.answer(content=published.archive[:-1] + b"x"))

    assert f"expected md5:{hashlib.md5(published.archive).hexdigest()} (stated by http" in failed("nuinsseg")
    assert list((tmp_path / "data [sets]").iterdir()) == []


def test_a_login_page_in_place_of_an_archive_without_digest_is_told(
    published: Published, failed, tmp_path: Path
) -> None:
    published.server.put("/stage1_train.zip", published.answer(content=b"<!DOCTYPE html><title>Log in</title>"))

    assert "it is a web page, such as a login" in failed("dsb2018")
    assert list((tmp_path / "data [sets]").iterdir()) == []


def test_an_archive_of_something_else_leaves_nothing(published: Published, failed, tmp_path: Path) -> None:
    published.serve(zipped({"a/b.txt": b"x"}))

    assert "NuInsSeg.zip is not NuInsSeg" in failed("nuinsseg")
    assert list((tmp_path / "data [sets]").iterdir()) == []


def test_images_missing_from_what_no_digest_vouches_for_are_an_error(published: Published, failed, tmp_path) -> None:
    files = {name: content for name, content in dsb2018_files().items() if "id2" not in name}
    published.server.put("/stage1_train.zip", published.answer(content=zipped(files)))

    assert "2 images, where 3 were published" in failed("dsb2018")
    assert list((tmp_path / "data [sets]").iterdir()) == []


def test_images_missing_from_what_was_published_so_are_told(published: Published, get) -> None:
    published.serve(zipped({name: content for name, content in nuinsseg_files().items() if "b_2" not in name}))

    assert get("nuinsseg").checks[-1] == "2 images, where 3 were published"


def test_a_damaged_image_is_found_before_it_is_put_in_place(published: Published, failed, tmp_path: Path) -> None:
    files = dsb2018_files()
    files["id1/images/id1.png"] = files["id1/images/id1.png"][:-40]
    published.server.put("/stage1_train.zip", published.answer(content=zipped(files)))

    assert "1 images cannot be read: stage1_train.zip/id1/images/id1.png" in failed("dsb2018")
    assert list((tmp_path / "data [sets]").iterdir()) == []


def test_an_interrupted_download_goes_on(published: Published, failed, get) -> None:
    half = published.answer(content=published.archive, cut=len(published.archive) // 2)
    published.server.put(ARCHIVE, half, published.answer(status=503))
    assert "is kept: the same command goes on from there" in failed("nuinsseg")
    published.serve()
    published.server.requests.clear()

    assert files_in(get("nuinsseg").place) == nuinsseg_files()
    assert published.server.asked(ARCHIVE)[0]["Range"] == f"bytes={len(published.archive) // 2}-"


def test_what_cannot_be_downloaded_names_the_way_around(published: Published, failed, get, tmp_path: Path) -> None:
    published.serve(status=403)

    message = failed("nuinsseg")

    assert "answers 403 Forbidden" in message
    assert "from https://zenodo.org/records/10518968" in message
    assert "`nucseg fetch nuinsseg --from NuInsSeg.zip`" in message
    assert list((tmp_path / "data [sets]").iterdir()) == []
    (tmp_path / "NuInsSeg.zip").write_bytes(published.archive)
    fetched = get("nuinsseg", Path("NuInsSeg.zip"))
    assert files_in(fetched.place) == nuinsseg_files()
    assert f"its md5:{hashlib.md5(published.archive).hexdigest()}" in fetched.checks[-1]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_a_person_has_downloaded_is_checked_and_put_in_place(
    published, get, tmp_path, name: str, packed: bool
) -> None:
    files = MAKERS[name]()
    given = tmp_path / "download"
    given.write_bytes(zipped(files)) if packed else zipfile.ZipFile(io.BytesIO(zipped(files))).extractall(given)

    fetched = get(name, given)

    assert files_in(fetched.place) == files
    assert f"{N_IMAGES} images read" in fetched.checks[0]
    assert "not held against" in fetched.checks[1] or "no digest is published" in fetched.checks[1]
    assert given.exists()
    assert published.server.requests == []


def test_weights_that_a_person_has_downloaded_are_checked_and_put_in_place(published, get, failed, tmp_path) -> None:
    given = tmp_path / "browser (1).pth"
    given.write_bytes(published.weights[:-5])
    assert f"{given} is left as it is" in failed("vit_b", given)
    given.write_bytes(published.weights)

    assert get("vit_b", given).place.read_bytes() == published.weights
    assert given.exists()


def test_half_a_data_set_is_not_put_in_place(published: Published, failed, tmp_path: Path) -> None:
    files = {name: content for name, content in cryonuseg_files().items() if "_03" not in name}
    (tmp_path / "archive.zip").write_bytes(zipped(files))

    message = failed("cryonuseg", tmp_path / "archive.zip")

    assert f"{tmp_path / 'archive.zip'} is not the whole of CryoNuSeg" in message
    assert "`nucseg embed --dataset cryonuseg --source DIR`" in message
    assert list((tmp_path / "data [sets]").iterdir()) == []
    assert (tmp_path / "archive.zip").exists()


def test_a_folder_of_something_else_is_not_copied(published: Published, failed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    assert "is not CoNIC" in failed("conic", tmp_path / "other")
    assert "is not there" in failed("conic", tmp_path / "none")
    assert "is no file" in failed("vit_b", tmp_path / "other")


def test_a_folder_with_much_else_in_it_is_not_copied(published, failed, tmp_path, monkeypatch) -> None:
    zipfile.ZipFile(io.BytesIO(published.archive)).extractall(tmp_path / "downloads")
    (tmp_path / "downloads" / "film.mkv").write_bytes(bytes(100_000))
    monkeypatch.setitem(CATALOGUE, "nuinsseg", replace(CATALOGUE["nuinsseg"], most_unpacked_bytes=90_000))

    assert "Name the folder that holds the data set alone" in failed("nuinsseg", tmp_path / "downloads")


@pytest.mark.parametrize("name", ["cryonuseg", "conic"])
def test_what_needs_an_account_is_told_step_by_step(published, failed, name: str, tmp_path: Path) -> None:
    message = failed(name)

    assert message == instructions(CATALOGUE[name])
    assert [line.split(".")[0].strip() for line in message.splitlines()[1:]] == ["1", "2", "3"]
    assert CATALOGUE[name].release.home in message
    assert f"`nucseg fetch {name} --from " in message
    assert str(tmp_path / "data [sets]" / name) in message


@pytest.mark.parametrize(
    ("name", "told"),
    [("vitb", "Did you mean 'vit_b'"), ("synthetic", "drawn, not fetched"), ("folder", "--source DIR")],
)
def test_what_cannot_be_fetched_is_told_with_the_way_out(published, get, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        get(name)


def test_what_a_killed_fetch_left_behind_its_result_is_tidied_away(published: Published, get) -> None:
    place = get("nuinsseg").place
    left = place.parent / ".nuinsseg.part"
    left.mkdir()
    (left / "NuInsSeg.zip.part").write_bytes(published.archive)
    with workplace(place):
        get("nuinsseg")
        assert left_over(place.parent) == [".nuinsseg.part"], "another process is at work in it"

    get("nuinsseg")

    assert left_over(place.parent) == []


def test_two_at_once_are_kept_apart(published: Published, failed, tmp_path: Path) -> None:
    with workplace(tmp_path / "data [sets]" / "nuinsseg"):
        assert "Another process is fetching" in failed("nuinsseg")
    assert published.server.requests == []


def test_a_place_that_cannot_be_written_is_told_with_the_variables(published, failed, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "file" / "x"))

    assert "$NUCSEG_WEIGHTS" in failed("vit_b")


def test_the_survey_knows_every_data_set_with_a_home_and_every_published_encoder(published, get) -> None:
    get("vit_b")

    found = {item.name: place for item, place in survey()}

    assert list(found) == [*("nuinsseg", "cryonuseg", "conic", "dsb2018"), *ARCHITECTURES]
    assert [name for name, place in found.items() if place] == ["vit_b"]


def test_published_digests_and_addresses_are_those_of_the_encoders() -> None:
    for name, vit in ARCHITECTURES.items():
        item = CATALOGUE[name]
        assert (item.url, item.digest, item.file_name) == (vit.url, f"xxh128:{vit.file_digest}", vit.file_name)
    assert CATALOGUE["nuinsseg"].record.rsplit("/", 1)[1] == CATALOGUE["nuinsseg"].release.home.rsplit("/", 1)[1]
    assert all(item.address.startswith("https://") for item in CATALOGUE.values())
    assert not CATALOGUE["nuinsseg"].digest, "Zenodo states it when asked"


KILLED = """
import sys
from dataclasses import replace
from nucseg_pipeline import fetch
from nucseg_pipeline.fetching.catalogue import CATALOGUE
nuinsseg = CATALOGUE["nuinsseg"]
CATALOGUE["nuinsseg"] = replace(nuinsseg, record=sys.argv[1], release=replace(nuinsseg.release, n_images=3))
def show(done, total, what):
    print(what, flush=True)
    if what.startswith(sys.argv[2]):
        sys.stdin.readline()
fetch.fetch("nuinsseg", progress=show)
"""


@pytest.fixture
def killed_at(published: Published) -> Iterator[Callable[[str], None]]:
    """Fetch NuInsSeg in another process, and kill it in the middle of a step."""

    def run(step: str) -> None:
        command = [sys.executable, "-c", KILLED, f"{published.server.address}{RECORD}", step]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert child.stdout is not None
        assert any(line.startswith(step) for line in iter(child.stdout.readline, "")), "it ended before"
        child.send_signal(signal.SIGKILL)
        child.communicate()

    return run


def test_a_fetch_killed_in_any_step_is_finished_by_the_next(
    published: Published, killed_at, get, tmp_path: Path
) -> None:
    asked = []
    for step in ("downloading", "unpacking", "reading"):
        killed_at(step)
        asked.append(len(published.server.asked(ARCHIVE)))
        assert not (tmp_path / "data [sets]" / "nuinsseg").exists()

    fetched = get("nuinsseg")

    assert files_in(fetched.place) == nuinsseg_files()
    assert left_over(fetched.place.parent) == []
    assert asked[1] == asked[2] == len(published.server.asked(ARCHIVE)), "what was whole came again"
