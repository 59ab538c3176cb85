"""`nucseg fetch` on the command line."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from typer.testing import CliRunner, Result

from nucseg_pipeline.cli import app
from nucseg_pipeline.cli.console import out
from nucseg_pipeline.fetch.catalogue import CATALOGUE

CONTENT = b"weights" * 300_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "data [sets]"))
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "weights [1]"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def published(file_server, answer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve a file as vit_b; its URL."""
    url = file_server.put("/sam_vit_b_01ec64.pth", answer(content=CONTENT))
    digest = f"xxh128:{xxhash.xxh128(CONTENT).hexdigest()}"
    monkeypatch.setitem(CATALOGUE, "vit_b", replace(CATALOGUE["vit_b"], url=url, digest=digest))
    return url


def nucseg(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fetch", *(str(argument) for argument in arguments)])


def cells(text: str) -> list[str]:
    """The cells of a table, each as if it were not wrapped."""
    found: list[str] = []
    for rule in text.split("├"):
        lines = [line.strip("│").split("│") for line in rule.splitlines() if line.startswith("│")]
        found += [" ".join(" ".join(parts).split()) for parts in zip(*lines, strict=True)]
    return found


def test_weights_are_fetched_with_progress_and_digest(tmp_path: Path) -> None:
    fetched = nucseg("vit_b")

    assert fetched.exit_code == 0, fetched.output
    lines = fetched.stdout.splitlines()
    assert any(line.startswith("downloading sam_vit_b_01ec64.pth: 2 of 2") for line in lines)
    assert "SAM ViT-B (Kirillov et al. 2023): fetched" in lines
    assert f"  {CATALOGUE['vit_b'].digest}, pinned by micro-sam" in lines
    assert "licence: Apache-2.0" in lines
    assert f"path: {tmp_path / 'weights [1]' / 'sam_vit_b_01ec64.pth'}" in lines
    assert "already there" in nucseg("vit_b").stdout


@pytest.mark.parametrize("width", [80, 140])
def test_without_a_name_everything_is_listed(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", width)
    (tmp_path / "data [sets]" / "dsb2018" / "x").mkdir(parents=True)

    listed = nucseg()

    assert listed.exit_code == 0, listed.output
    found = cells(listed.stdout)
    for wanted in ("nuinsseg", "1.6 GB", "CC BY-NC-SA 4.0", "no; needs an account", "375 MB", "Apache-2.0"):
        assert any(cell.startswith(wanted) for cell in found), wanted
    assert any(cell.replace(" ", "").endswith("data[sets]/dsb2018") for cell in found)
    table = [line for line in listed.stdout.splitlines() if line[0] in "┏┃┡│├└"]
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table[0]) <= width


def test_a_data_set_that_needs_an_account_is_an_error_with_instructions() -> None:
    failed = nucseg("cryonuseg")

    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: CryoNuSeg (Mahbod et al. 2021) needs an account")
    assert "  1. Log in at https://www.kaggle.com" in failed.stderr


def test_a_local_file_is_verified_and_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conic = CATALOGUE["conic"]
    monkeypatch.setitem(CATALOGUE, "conic", replace(conic, release=replace(conic.release, n_images=2)))
    with zipfile.ZipFile(tmp_path / "conic [1].zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind, channels in (("images.npy", np.uint8, 3), ("labels.npy", np.uint16, 2)):
            file = io.BytesIO()
            np.save(file, np.ones((2, 256, 256, channels), kind))
            archive.writestr(name, file.getvalue())
        archive.writestr("patch_info.csv", "patch_info\nglas_1-0000\nglas_2-0000\n")

    fetched = nucseg("conic", "--from", "conic [1].zip")

    assert fetched.exit_code == 0, fetched.output
    assert "reading: 2 of 2" in fetched.stdout
    assert "  2 images read, with 2 nuclei" in fetched.stdout
    assert f"path: {tmp_path / 'data [sets]' / 'conic'}" in fetched.stdout
    note = json.loads((tmp_path / "data [sets]" / ".conic.fetched.json").read_text())
    assert note["from"] == str(tmp_path / "conic [1].zip")


def test_a_failed_download_is_one_error_with_the_way_out(file_server, answer, published: str) -> None:
    file_server.put("/sam_vit_b_01ec64.pth", answer(status=404))

    failed = nucseg("vit_b")

    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"error: {published} cannot be downloaded: HTTP 404 Not Found.")
    assert "`nucseg fetch vit_b --from sam_vit_b_01ec64.pth`" in failed.stderr
    assert "Traceback" not in failed.output


def test_ctrl_c_keeps_the_part_for_the_next_call(
    file_server, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "weights [1]" / ".sam_vit_b_01ec64.pth.part" / "sam_vit_b_01ec64.pth.part"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.link", interrupt)  # after the last byte, before the digest is verified
        stopped = nucseg("vit_b")

    assert stopped.exit_code == 130
    assert "the same command" in stopped.stderr
    assert part.read_bytes() == CONTENT
    file_server.put("/sam_vit_b_01ec64.pth", answer(content=CONTENT, cut=0))
    assert nucseg("vit_b").exit_code == 0


@pytest.mark.parametrize(("arguments", "status"), [(("--from", "x"), 2), (("vitb",), 1), (("vit_b", "--from", "x"), 1)])
def test_wrong_usage_has_an_exit_code(arguments: tuple[str, ...], status: int) -> None:
    assert nucseg(*arguments).exit_code == status
