"""Fetching data sets and weights: what is in place afterwards, and what is not after a failure."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from nucseg.encoders import ARCHITECTURES
from nucseg.encoders.weights import find_weights
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.stage import instructions, survey
from nucseg_pipeline.fetch.staging import staging_folder

ARCHIVE = "/files/NuInsSeg.zip/content"


def test_embed_finds_what_was_fetched(published, get, tmp_path: Path) -> None:
    data, weights = get("nuinsseg"), get("vit_b")

    result = embed(EmbedConfig(dataset="nuinsseg", cache=str(tmp_path / "cache"), device="cpu"), lambda *_: None)

    assert result.n_encoded == 3
    assert Store.open(result.location).source == str(data.path)
    assert find_weights("vit_b", None).path == weights.path


def test_a_data_set_is_complete_and_says_what_was_verified(published, get, files_in) -> None:
    digest = published.put_nuinsseg(published.zipped(published.files["nuinsseg"]))

    fetched = get("nuinsseg")

    assert fetched.is_new
    assert fetched.path == published.data / "nuinsseg"
    assert files_in(fetched.path) == published.files["nuinsseg"]
    assert fetched.checks[0] == "3 images read, with 6 nuclei"
    assert fetched.checks[1].startswith(f"{digest}, stated by http")
    assert fetched.checks[1].endswith("licence stated there: cc-by-4.0")
    note = json.loads((published.data / ".nuinsseg.fetched.json").read_text())
    assert (note["digest"], note["files"]) == (digest, 6)
    assert {path.name for path in published.data.iterdir()} == {"nuinsseg", ".nuinsseg.fetched.json"}


def test_a_data_set_without_a_published_digest_says_so(published, get, files_in) -> None:
    fetched = get("dsb2018")

    assert files_in(fetched.path) == published.files["dsb2018"]
    assert fetched.checks[1].startswith("no digest is published to compare with; this one is md5:")


def test_without_nucseg_data_a_data_set_goes_to_the_current_folder(published, get, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NUCSEG_DATA")

    assert get("nuinsseg").path == tmp_path / "data" / "nuinsseg"


def test_an_empty_folder_is_replaced_also_if_a_later_place_has_files(published, get, tmp_path: Path) -> None:
    (published.data / "nuinsseg").mkdir()
    (tmp_path / "data" / "nuinsseg" / "not where embed looks first").mkdir(parents=True)

    assert get("nuinsseg").path == published.data / "nuinsseg"


def test_a_wrong_digest_is_an_error_and_the_next_attempt_starts_again(published, failure, get, tmp_path) -> None:
    wrong = published.weights[:-1] + b"x"
    published.put_weights(wrong)

    message = failure("vit_b")

    assert xxhash.xxh128(wrong).hexdigest() in message
    assert xxhash.xxh128(published.weights).hexdigest() in message
    assert "`nucseg fetch vit_b --from sam_vit_b_01ec64.pth`" in message
    assert list((tmp_path / "weights").iterdir()) == []
    published.put_weights(published.weights)
    assert get("vit_b").is_new


def test_an_archive_with_another_digest_than_its_record_is_refused(published, failure) -> None:
    archive = published.zipped(published.files["nuinsseg"])
    digest = published.put_nuinsseg(archive[:-1] + b"x", record=archive)

    assert f"expected {digest}" in failure("nuinsseg")
    assert list(published.data.iterdir()) == []


def without(files: dict[str, bytes], part: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if part not in name}


def damaged(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"id1/images/id1.png": files["id1/images/id1.png"][:-40]}


REFUSED: dict[str, tuple[Callable[[Any], bytes], str]] = {
    "another data set": (lambda p: p.zipped({"a/b.txt": b"x"}), "stage1_train.zip is not"),
    "images missing": (lambda p: p.zipped(without(p.files["dsb2018"], "id2")), "found 2 images, expected 3"),
    "a damaged image": (
        lambda p: p.zipped(damaged(p.files["dsb2018"])),
        "1 images cannot be read: stage1_train.zip/id1/images/id1.png",
    ),
    "a login page": (lambda p: b"<!DOCTYPE html><title>Log in</title>", "it is a web page, such as a login page"),
}


@pytest.mark.parametrize(("archive", "message"), REFUSED.values(), ids=REFUSED)
def test_an_archive_without_a_digest_must_hold_the_complete_data_set(
    published, failure, get, archive: Callable[[Any], bytes], message: str
) -> None:
    published.put_dsb2018(archive(published))

    assert message in failure("dsb2018")
    assert list(published.data.iterdir()) == []

    published.put_dsb2018(published.zipped(published.files["dsb2018"]))
    assert get("dsb2018").is_new


def test_images_missing_from_the_published_archive_are_only_reported(published, get) -> None:
    published.put_nuinsseg(published.zipped(without(published.files["nuinsseg"], "b_2")))

    assert "found 2 images, expected 3" in get("nuinsseg").checks


def test_a_failed_download_suggests_from_which_works(published, failure, get, files_in, tmp_path: Path) -> None:
    archive = published.zipped(published.files["nuinsseg"])
    digest = published.put_nuinsseg(archive, status=403)

    message = failure("nuinsseg")

    assert "HTTP 403 Forbidden" in message
    assert "from https://zenodo.org/records/10518968" in message
    assert "`nucseg fetch nuinsseg --from NuInsSeg.zip`" in message
    assert list(published.data.iterdir()) == []
    (tmp_path / "NuInsSeg.zip").write_bytes(archive)
    fetched = get("nuinsseg", Path("NuInsSeg.zip"))
    assert files_in(fetched.path) == published.files["nuinsseg"]
    assert f"this one is {digest}" in fetched.checks[-1]


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
@pytest.mark.parametrize("name", ["nuinsseg", "dsb2018", "cryonuseg", "conic"])
def test_a_data_set_from_the_user_is_verified_and_copied(published, get, files_in, tmp_path, name, packed) -> None:
    local = tmp_path / "download"
    local.write_bytes(published.zipped(published.files[name]))
    if not packed:
        archive = local.rename(tmp_path / "archive")
        zipfile.ZipFile(archive).extractall(local)

    fetched = get(name, local)

    assert files_in(fetched.path) == published.files[name]
    assert "3 images read" in fetched.checks[0]
    assert "not compared with" in fetched.checks[1] or "no digest is published" in fetched.checks[1]
    assert local.exists()
    assert published.server.requests == []


def test_weights_from_the_user_are_verified_and_copied(published, get, failure, tmp_path: Path) -> None:
    local = tmp_path / "browser (1).pth"
    local.write_bytes(published.weights[:-5])
    assert f"{local} is not SAM" in failure("vit_b", local)
    local.write_bytes(published.weights)

    assert get("vit_b", local).path.read_bytes() == published.weights
    assert local.exists()


def test_an_incomplete_data_set_from_the_user_is_refused(published, failure, tmp_path: Path) -> None:
    local = tmp_path / "archive.zip"
    local.write_bytes(published.zipped(without(published.files["cryonuseg"], "_03")))

    message = failure("cryonuseg", local)

    assert f"{local} is not the complete CryoNuSeg" in message
    assert "`nucseg embed --dataset cryonuseg --source DIR`" in message
    assert list(published.data.iterdir()) == []
    assert local.exists()


def test_a_wrong_local_path_is_refused(published, failure, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "new" / "folder"))
    (tmp_path / "empty").mkdir()

    assert "is not CoNIC" in failure("conic", tmp_path / "empty")
    assert "does not exist" in failure("conic", tmp_path / "missing")
    assert "is not a file" in failure("vit_b", tmp_path / "empty")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_much_else_in_it_is_not_copied(published, failure, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.zip").write_bytes(published.zipped(published.files["nuinsseg"]))
    zipfile.ZipFile(tmp_path / "a.zip").extractall(tmp_path / "downloads")
    (tmp_path / "downloads" / "film.mkv").write_bytes(bytes(100_000))
    monkeypatch.setitem(CATALOGUE, "nuinsseg", replace(CATALOGUE["nuinsseg"], max_unpacked_bytes=90_000))

    assert "Name the folder that holds only the data set" in failure("nuinsseg", tmp_path / "downloads")


@pytest.mark.parametrize("name", ["cryonuseg", "conic"])
def test_a_data_set_that_needs_an_account_has_instructions(published, failure, name: str) -> None:
    message = failure(name)

    assert message == instructions(CATALOGUE[name])
    assert [line.split(".")[0].strip() for line in message.splitlines()[1:]] == ["1", "2", "3"]
    assert CATALOGUE[name].release.home in message
    assert f"`nucseg fetch {name} --from " in message
    assert str(published.data / name) in message


@pytest.mark.parametrize(
    ("name", "message"),
    [("vitb", "Did you mean 'vit_b'"), ("synthetic", "generated, not fetched"), ("folder", "--source DIR")],
)
def test_an_unknown_name_is_reported_with_the_way_out(published, get, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get(name)


def test_two_processes_do_not_fetch_the_same_data_set(published, failure, get) -> None:
    with staging_folder(published.data / "nuinsseg"):
        assert "Another process is fetching" in failure("nuinsseg")
    assert published.server.requests == []

    get("nuinsseg")
    left = published.data / ".nuinsseg.part"
    left.mkdir()
    (left / "NuInsSeg.zip.part").write_bytes(b"left by a killed process")
    get("nuinsseg")
    assert not left.exists()


def test_a_folder_that_cannot_be_written_is_reported_with_its_variable(
    published, failure, tmp_path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "file" / "x"))

    assert "$NUCSEG_WEIGHTS" in failure("vit_b")


def test_the_survey_lists_every_published_data_set_and_encoder(published, get) -> None:
    get("vit_b")

    found = {item.name: path for item, path in survey()}

    assert list(found) == ["nuinsseg", "cryonuseg", "conic", "dsb2018", *ARCHITECTURES]
    assert [name for name, path in found.items() if path] == ["vit_b"]


def test_the_catalogue_agrees_with_the_encoders_and_the_releases() -> None:
    for name, vit in ARCHITECTURES.items():
        item = CATALOGUE[name]
        assert (item.url, item.digest, item.file_name) == (vit.url, f"xxh128:{vit.file_digest}", vit.file_name)
    assert CATALOGUE["nuinsseg"].record.rsplit("/", 1)[1] == CATALOGUE["nuinsseg"].release.home.rsplit("/", 1)[1]
    assert all(item.address.startswith("https://") for item in CATALOGUE.values())


KILLED = """
import sys
from dataclasses import replace
from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.stage import fetch
nuinsseg = CATALOGUE["nuinsseg"]
CATALOGUE["nuinsseg"] = replace(nuinsseg, record=sys.argv[1], release=replace(nuinsseg.release, n_images=3))
def show(done, total, what):
    print(what, flush=True)
    if what.startswith(sys.argv[2]):
        sys.stdin.readline()
fetch("nuinsseg", progress=show)
"""


def test_a_fetch_killed_in_any_step_is_finished_by_the_next_call(published, get, files_in) -> None:
    requests = []
    for step in ("downloading", "unpacking", "reading"):
        command = [sys.executable, "-c", KILLED, CATALOGUE["nuinsseg"].record, step]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        ) as child:
            assert child.stdout is not None
            assert any(line.startswith(step) for line in child.stdout), "the process ended before this step"
            child.send_signal(signal.SIGKILL)
        requests.append([headers.get("Range") for headers in published.server.requests_for(ARCHIVE)])
        assert not (published.data / "nuinsseg").exists()

    assert files_in(get("nuinsseg").path) == published.files["nuinsseg"]
    assert {path.name for path in published.data.iterdir()} == {"nuinsseg", ".nuinsseg.fetched.json"}
    n_bytes = len(published.zipped(published.files["nuinsseg"]))
    assert requests == [[None], [None, f"bytes={n_bytes}-"], [None, f"bytes={n_bytes}-"]], "downloaded again"
