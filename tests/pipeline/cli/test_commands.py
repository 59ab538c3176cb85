"""The command line: help, exit statuses, messages without tracebacks."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from nucseg.errors import EncoderError
from nucseg_cache import Store
from nucseg_pipeline.cli import app

COMMANDS = (
    "fetch", "embed", "train", "report", "predict", "ablate", "figures", "fidelity", "distill", "models", "datasets",
    "demo", "cache info", "cache verify", "cache prune",
)  # fmt: skip


def nucseg(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Result) -> str:
    """The message of a command that failed as it should: exit status 1, one error, no traceback."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("error: ") == 1
    return " ".join(result.stderr.split())


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "my [slides]"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(np.eye(48, dtype=np.uint8) * 255).save(folder / "masks" / f"{i}.png")
    return folder


@pytest.fixture
def embed(slides: Path, tmp_path: Path) -> Any:
    def run(*more: object, cache: Path = tmp_path / "cache", encoder: str = "random") -> Result:
        named = ("--dataset", "mine", "--source", slides, "--cache", cache, "--encoder", encoder)
        return nucseg("embed", *named, "--threads", 1, *more)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_says_what_the_command_reads_and_writes(command: str) -> None:
    text = " ".join(nucseg(*command.split(), "--help").stdout.split())

    assert "Read" in text
    assert any(word in text for word in ("Writes", "Reads only", "Clears", "Delete"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from nucseg_pipeline.cli import app; "
        "CliRunner().invoke(app, ['--help']); print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    heavy = ("torch", "zarr", "numpy", "monai", "sklearn", "skimage", "matplotlib", "accelerate", "onnxruntime")

    imported = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True).stdout

    assert imported.strip() == "[]"


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 9 GiB"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_memory_that_runs_out_is_an_error_that_names_options_of_the_command(
    embed: Any, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("embed.stage.sync_samples", "report.stage.report"):
        monkeypatch.setattr(f"nucseg_pipeline.{stage}", Mock(side_effect=error))

    assert f"error: there is not enough memory ({error}). Lower --batch-size or --workers, or close" in failed(embed())
    assert f"error: there is not enough memory ({error}). Close other programs" in failed(nucseg("report", tmp_path))


def test_wrong_usage_exits_with_2_and_an_error_of_a_stage_with_1(embed: Any, slides: Path, tmp_path: Path) -> None:
    assert nucseg("embed", "--no-such-option").exit_code == 2
    assert nucseg("cache", "info").exit_code == 2
    (slides / "masks" / "1.png").unlink()
    assert "1 of 2 images" in (text := failed(embed()))
    assert "1.png" in text
    advice = f"`nucseg embed --dataset mine --encoder vit_l --cache {tmp_path}`"
    assert advice in failed(nucseg("train", "--dataset", "mine", "--cache", tmp_path, "--encoder", "vit_l"))
    assert str(tmp_path / "none") in failed(nucseg("report", tmp_path / "none"))
    assert "nuinsseg-cpu" in failed(nucseg("train", "--dataset", "mine", "--recipe", "nuinsseg-cpo"))


def test_embed_takes_its_data_set_from_a_recipe(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[embed]\ndataset = "mine"\nencoder = "random"\nstain = "reinhard"\n')
    given = ("--recipe", tmp_path / "mine.toml", "--source", slides, "--cache", tmp_path / "cache", "--threads", 1)

    embedded = nucseg("embed", *given)

    assert embedded.exit_code == 0, embedded.output
    assert (tmp_path / "cache" / "mine@reinhard.zarr").exists()
    assert "give --dataset, or a recipe" in failed(nucseg("embed", "--encoder", "random"))


def test_embed_says_what_it_did_and_where(embed: Any, tmp_path: Path) -> None:
    first, second = embed(), embed()

    assert first.exit_code == second.exit_code == 0, first.output
    assert "2 images: 2 new" in first.stdout
    assert "2 encoded in" in first.stdout
    assert "0 encoded; 2 embedded" in second.stdout
    assert f"store: {tmp_path / 'cache' / 'mine.zarr'}" in second.stdout
    assert "random weights" in first.stderr


@pytest.mark.parametrize(
    ("sent", "message"), [(signal.SIGINT, "Interrupted."), (signal.SIGTERM, "Stopped by SIGTERM.")]
)
def test_an_interrupt_exits_with_130(
    embed: Any, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, message: str
) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), sent)
        time.sleep(60)

    monkeypatch.setattr("nucseg_pipeline.embed.stage.open_encoder", interrupt)
    before = signal.getsignal(sent)
    result = embed()

    assert result.exit_code == 130
    assert result.stderr == f"{message} Everything finished so far is kept; run the same command again to continue.\n"
    assert signal.getsignal(sent) is before


def test_a_second_sigterm_does_not_interrupt_the_cleaning_up_of_the_first(
    embed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = []

    def interrupt(*args: Any, **options: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)

    monkeypatch.setattr("nucseg_pipeline.embed.stage.open_encoder", interrupt)

    assert (embed().exit_code, tidied) == (130, [True])


def test_a_sigterm_that_is_ignored_stays_so(embed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "nucseg_pipeline.embed.stage.sync_samples", lambda *args: seen.append(signal.getsignal(signal.SIGTERM))
    )
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        embed()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert seen == [signal.SIG_IGN]


def test_an_interrupt_that_is_raised_as_another_error_is_reported_as_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = EncoderError("ONNX files need onnxruntime.")
    error.__context__ = ImportError("initialization failed")
    error.__context__.__cause__ = KeyboardInterrupt()  # as extension modules do
    monkeypatch.setattr("nucseg_pipeline.train.stage.train", Mock(side_effect=error))

    result = nucseg("train", "--dataset", "mine", "--run", tmp_path)

    assert result.exit_code == 130
    assert result.stderr.startswith("Interrupted. Every finished epoch is kept; run the same command with --resume to")


def test_cache_commands_show_check_and_prune_a_store(embed: Any, tmp_path: Path) -> None:
    embed()
    store = tmp_path / "cache" / "mine.zarr"
    key = Store.open(store).keys()[0].hash
    (store / "samples" / f".left.{'0' * 32}.tmp").mkdir()

    info, whole, pruned = (nucseg("cache", *c) for c in (("info", store), ("verify", store), ("prune", store)))

    assert f"{key}/identity: 2 embeddings" in info.stdout
    assert "at most 2**-11 of each value" in info.stdout
    assert "GiB in the files of images, masks and embeddings" in info.stdout
    assert "2 samples and 2 embeddings read, 0 bad" in whole.stdout
    assert "0 keys and 1 leftovers deleted" in pruned.stdout
    assert nucseg("cache", "prune", store, "--key", key).exit_code == 0
    assert Store.open(store).keys() == ()


def test_cache_commands_take_the_name_of_a_data_set(
    embed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed("--stain", "macenko")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine@macenko").mkdir()  # such as the images, which are not the store
    by_option = ("mine@macenko", "--cache", tmp_path / "cache")
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))

    for name in (by_option, ("mine@macenko",), ("cache/mine@macenko.zarr",)):
        assert "2 samples present" in nucseg("cache", "info", *name).stdout
        assert "2 samples and 2 embeddings read, 0 bad" in nucseg("cache", "verify", *name).stdout
        assert "0 keys" in nucseg("cache", "prune", *name).stdout
    message = failed(nucseg("cache", "info", "mine@maceko"))
    assert f"There is no store at {tmp_path / 'cache' / 'mine@maceko.zarr'}. Did you mean 'mine@macenko'?" in message


def test_a_bad_row_is_repaired_by_the_command_that_verify_prints(
    embed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed("--format", "i8")
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))
    chunk = next((tmp_path / "cache" / "mine.zarr").glob("embeddings/*/identity/values/c/1/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-40])

    advice = nucseg("cache", "verify", "mine").stderr

    (line,) = re.findall(r"`nucseg (.*)`", advice)
    assert "1 encoded" in nucseg(*shlex.split(line), "--threads", "1").stdout
    assert nucseg("cache", "verify", "mine").exit_code == 0


def test_verify_names_a_bad_row_and_exits_with_1(embed: Any, tmp_path: Path) -> None:
    embed()
    store = tmp_path / "cache" / "mine.zarr"
    chunk = next(store.glob("embeddings/*/identity/values/c/1/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-40])

    result = nucseg("cache", "verify", store)

    assert result.exit_code == 1
    assert "row 1 (1)" in result.stderr
    assert "1 encoded" in embed().stdout
    assert nucseg("cache", "verify", store).exit_code == 0


def test_the_demonstration_runs_the_commands_that_it_prints(tmp_path: Path) -> None:
    """The long one: the whole pipeline, as the README has it, on fewer images."""
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--quick"])

    assert result.exit_code == 0, result.output
    commands = [line[2:] for line in result.stdout.splitlines() if line.startswith("$ ")]
    assert [command.split()[1] for command in commands] == ["embed", "train", "train", "report"]
    page = tmp_path / "demo" / "report" / "report.html"
    assert result.stdout.rstrip().endswith(str(page))
    summary = json.loads((tmp_path / "demo" / "report" / "summary.json").read_text())
    assert set(summary["runs"]) == {"guided", "unguided"}
    shutil.rmtree(tmp_path / "demo" / "report")
    again = nucseg("demo", "--out", tmp_path / "demo", "--quick")
    assert "0 encoded" in again.stdout
    assert "was finished already" in again.stdout
    assert page.is_file()
