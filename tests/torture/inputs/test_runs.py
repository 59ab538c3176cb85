"""`report` and `train --resume` with run folders that lack a file, were damaged, edited or crafted."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

FILES = ("config.toml", "split.json", "inputs.json", "run.json", "epochs.csv", "last.pt", "best.pt", "rule.json")

FAULT = "run: folder damaged or edited"
MARK = "nucseg was here"


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.folder / MARK, "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache and a finished run of one epoch."""
    from typer.testing import CliRunner

    from nucseg_pipeline.cli import app

    folder = tmp_path_factory.mktemp("trained")
    drawn = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    for number in range(8):
        Image.fromarray(drawn.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"source/images/{number}.png")
        mask = np.zeros((48, 48), np.uint8)
        mask[4:20, 4:20] = 255
        Image.fromarray(mask).save(folder / f"source/masks/{number}.png")
    for words in (["embed", "--source", folder / "source", "--encoder", "none"], train(folder / "run")):
        done = CliRunner().invoke(app, [*map(str, words), "--dataset", "mine", "--cache", str(folder / "cache")])
        assert done.exit_code == 0, done.output
    return folder


def train(run: Path) -> list[object]:
    small = ["--fusion", "none", "--model", "unet", "--width", 1, "--epochs", 1, "--device", "cpu", "--threads", 1]
    return ["train", "--run", run, *small]


def deleted(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def with_content(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None


def cut(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2]) and None


def a_folder(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return change


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        content = json.loads((run / name).read_text())
        replaced = change(content)
        (run / name).write_text(json.dumps(content if replaced is None else replaced))

    return make


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return make


def checkpoint(name: str, change: Callable[[dict[str, Any], Path], Any]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        content = torch.load(run / name, weights_only=True)
        torch.save(change(content, run), run / name)

    return make


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key) and None


def other_weights(content: dict[str, Any], run: Path) -> dict[str, Any]:
    return {**content, "model": {name: torch.zeros(3) for name in content["model"]}}


def with_nan(content: dict[str, Any], run: Path) -> dict[str, Any]:
    return {
        **content,
        "model": {k: v * float("nan") if v.is_floating_point() else v for k, v in content["model"].items()},
    }


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"{name} deleted": deleted(name) for name in FILES},
    **{f"{name} empty": with_content(name, b"") for name in FILES},
    **{f"{name} binary": with_content(name, bytes(range(256))) for name in FILES},
    **{f"{name} cut in half": cut(name) for name in FILES},
    **{f"{name} a folder": a_folder(name) for name in FILES},
    **{f"{name} a list": with_content(name, b"[1, 2]") for name in FILES if name.endswith("json")},
    **{f"{name} deep": with_content(name, b"[" * 100_000) for name in FILES if name.endswith("json")},
    **{f"{name} with NaN": with_content(name, b'{"a": NaN}') for name in FILES if name.endswith("json")},
    "run.json of another format": edited("run.json", put(format=99)),
    "run.json without a status": edited("run.json", drop("status")),
    "run.json with an unknown status": edited("run.json", put(status=["finished"])),
    "run.json without the best epoch": edited("run.json", drop("best_epoch")),
    "run.json with text for the best epoch": edited("run.json", put(best_epoch="<script>")),
    "split.json without tests": edited("split.json", put(test=[])),
    "split.json with unknown ids": edited("split.json", put(test=["../../etc/passwd"])),
    "split.json with numbers for ids": edited("split.json", put(test=[1, 2])),
    "split.json with text for ids": edited("split.json", put(test="abc")),
    "split.json with nothing for ids": edited("split.json", put(test=None)),
    "split.json with ids twice": edited("split.json", lambda c: put(test=c["test"] * 2)(c)),
    "split.json with more": edited("split.json", put(more=1)),
    "inputs.json with another store": edited("inputs.json", put(store="../../nowhere.zarr")),
    "inputs.json with a number for a store": edited("inputs.json", put(store=3)),
    "inputs.json with a list for samples": edited("inputs.json", put(samples=[])),
    "inputs.json with no samples": edited("inputs.json", put(samples={})),
    "inputs.json with text for a preparation": edited("inputs.json", put(preparation="x")),
    "inputs.json with other digests": edited(
        "inputs.json", lambda c: put(samples={k: ["0", "0"] for k in c["samples"]})(c)
    ),
    "rule.json with text": edited("rule.json", lambda c: dict.fromkeys(c, "x")),
    "rule.json with nothing": edited("rule.json", lambda c: dict.fromkeys(c)),
    "rule.json with less": edited("rule.json", lambda c: dict(list(c.items())[:1])),
    "rule.json with huge numbers": edited("rule.json", lambda c: dict.fromkeys(c, 10**400)),
    "config.toml of another network": replaced("config.toml", "width = 1", "width = 2"),
    "config.toml of another model": replaced("config.toml", '"unet"', '"unet3plus"'),
    "config.toml of no model": replaced("config.toml", '"unet"', '"magic"'),
    "config.toml with an unknown key": replaced("config.toml", "width = 1", "width = 1\nmagic = 1"),
    "config.toml of another data set": replaced("config.toml", '"mine"', '"../mine"'),
    "epochs.csv of text": with_content("epochs.csv", b"epoch,loss\na,b\n"),
    "epochs.csv of one column": with_content("epochs.csv", b"epoch\n1\n"),
    "epochs.csv with a row too long": with_content("epochs.csv", b"epoch,loss\n1,2,3\n"),
    **{
        f"{name} {what}": checkpoint(name, change)
        for name in ("best.pt", "last.pt")
        for what, change in {
            "with other keys": lambda c, run: {**c, "model": {"a": torch.zeros(1)}},
            "with other shapes": other_weights,
            "with NaN weights": with_nan,
            "without weights": lambda c, run: {k: v for k, v in c.items() if k != "model"},
            "with text for weights": lambda c, run: {**c, "model": "x"},
            "without the digest of its inputs": lambda c, run: {k: v for k, v in c.items() if k != "inputs"},
            "of other inputs": lambda c, run: {**c, "inputs": "0"},
            "of another format": lambda c, run: {**c, "format": 99},
            "that is a list": lambda c, run: [1],
            "with code": lambda c, run: {**c, "more": Code(run)},
        }.items()
    },
    **{
        f"{name} a bare pickle": lambda run, name=name: (run / name).write_bytes(pickle.dumps(Code(run))) and None
        for name in ("best.pt", "last.pt")
    },
}


def test_damaged_runs(trial: Any, some_of: Any, trained: Path) -> None:
    for case, damage in some_of(DAMAGES, 4).items():
        folder = trial.new_folder()
        shutil.copytree(trained / "run", folder / "run")
        damage(folder / "run")
        name = case.split()[0]
        naming = [name, str(folder / "run"), "mine", "nowhere", "store"]
        report = folder / "report"
        complete = lambda _, report=report: "" if is_complete(report) else "the report is incomplete"  # noqa: E731
        trial(
            FAULT,
            f"{case}: report",
            ["report", folder / "run", "--out", report],
            naming=naming,
            check=complete if is_unused(case) else None,
            untouched=folder / "run",
        )
        words = [*train(folder / "run"), "--dataset", "mine", "--cache", trained / "cache", "--resume"]
        trial(
            FAULT,
            f"{case}: resume",
            words,
            naming=[*naming, "configuration"],
            check=lambda _: "",
        )
        assert not (folder / "run" / MARK).exists(), case
        assert json.loads((trained / "run" / "run.json").read_text())["status"] == "finished"


def is_unused(case: str) -> bool:
    """Whether a report does not read what was changed."""
    return case.startswith(("last.pt", "epochs.csv")) or case == "config.toml of another data set"


def is_complete(report: Path) -> bool:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    json.loads((report / "summary.json").read_text(), parse_constant=refuse)
    page = (report / "report.html").read_text()
    return page.count("<script") == 2 and page.count("script-src 'sha256-") == 1  # its script and its data
