"""Data sets, caches and runs from others are read, never executed."""

import base64
import csv
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
import zarr
from PIL import Image
from typer.testing import CliRunner, Result

from nucseg_cache import CacheError, Store
from nucseg_pipeline.cli import app

MARK = "__import__('os').system('touch pwned')"
"""Python code in the data, which leaves a file if it is executed."""

EXPECTED = "builtins.len"
"""What audit_pipeline.py unpickles itself, to show that the audit works."""

IDS = (
    f"={MARK}", "<script>alert(1)<script>", "@SUM(1)", "-2+3", "+1", "'\"><img src=x onerror=alert(1)>",
    "{{ 7*7 }}", "[x](javascript:alert(1))", "a|b", "plain",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten images whose names do harm if they are used as more than text."""
    folder = tmp_path_factory.mktemp("audited")
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    for name in IDS:
        Image.fromarray(random.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / "source/images" / f"{name}.png")
        mask = np.zeros((48, 48), np.uint8)
        mask[4:20, 4:20] = mask[30:40, 30:40] = 255
        Image.fromarray(mask).save(folder / "source/masks" / f"{name}.png")
    return folder


def audit(folder: Path, encoder: str, *options: str) -> dict[str, Any]:
    """Run the pipeline in a new process; returns its audit events."""
    for name in ("home", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):  # torch sets the last one itself
        environment.pop(name, None)
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = Path(__file__).with_name("audit_pipeline.py")
    done = subprocess.run(
        [sys.executable, "-P", script, folder, MARK, encoder, *options],
        cwd=folder / "home",
        env=environment,
        text=True,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    events: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert {status for status, _ in events["statuses"].values()} == {0}, events["statuses"]
    return events


@pytest.fixture(scope="module")
def events(folder: Path, instant_encoder: str) -> dict[str, Any]:
    return audit(folder, instant_encoder)


def written_elsewhere(events: dict[str, Any], folder: Path) -> list[str]:
    """Paths outside the folders given to the commands, except for matplotlib's font list in the user's cache."""
    fonts = re.compile(re.escape(str(folder / "home")) + r"/\.(cache|config)(/matplotlib(/.*)?)?$")
    given = [str(folder / name) for name in ("cache", "run", "report", "temporary")]
    return sorted(
        path
        for path in {os.path.realpath(path) if path.startswith("/") else path for path in events["written"]}
        if path not in ("", "/dev/null")
        and not fonts.match(path)
        and not any(path == place or path.startswith(f"{place}/") for place in given)
        and not path.startswith("/proc/self/")
    )


def test_the_pipeline_has_no_side_effects(events: dict[str, Any], folder: Path, ledger: Any) -> None:
    assert EXPECTED in events["pickle"]
    ledger.judge("code in inputs: unpickled", [name for name in events["pickle"] if name != EXPECTED])
    ledger.judge("code in inputs: compiled or executed", events["code"])
    ledger.judge("code in inputs: side effects", list(folder.rglob("pwned")))
    ledger.judge("network used by embed, train, report", [event for event in events["socket"] if not is_bind(event)])
    processes = [event for event in events["process"] if "fc-list" not in event]
    ledger.judge("processes started by embed, train, report", processes)
    ledger.judge("files written elsewhere by embed, train, report", written_elsewhere(events, folder))


def is_bind(event: str) -> bool:
    """urllib3 binds once on import, to detect IPv6."""
    return bool(re.match(r"socket\.bind \('(::1|127\.0\.0\.1)'", event))


def test_workers_use_the_loopback_interface_only(folder: Path, instant_encoder: str, profile: Any, ledger: Any) -> None:
    profile.trials(short=0, long=1)  # it starts Dask workers
    other = folder.parent / "with workers"
    other.mkdir()
    (other / "source").symlink_to(folder / "source")

    events = audit(other, instant_encoder, "--workers", "2")

    loopback = re.compile(r"'(::1|127\.0\.0\.1|localhost|/.*)'|^.*getaddrinfo (127|::1)")
    ledger.judge("network used by embed --workers", [event for event in events["socket"] if not loopback.search(event)])
    ledger.judge("files written elsewhere by embed --workers", written_elsewhere(events, other))


class Scripts(HTMLParser):
    """Collects the elements and attributes of a page that could execute something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        links = [value for name, value in attrs if name in ("href", "src") and value]
        if tag == "script" and dict(attrs) not in ({}, {"type": "application/json", "id": "data"}):
            self.found.append(tag)
        self.found += [tag] if tag in ("iframe", "object", "embed", "base", "form", "link") else []
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.found += [link[:60] for link in links if not link.startswith(("data:image/", "#"))]


def test_names_are_inert_in_a_report(events: dict[str, Any], folder: Path, ledger: Any) -> None:
    fault, report = "name: HTML in a report", folder / "report"
    page = (report / "report.html").read_text()
    scripts = Scripts()
    scripts.feed(page)
    ledger.judge(fault, scripts.found)
    texts = re.findall("(?s)<script>(.*?)</script>", page)
    digests = [base64.b64encode(sha256(text.encode()).digest()).decode() for text in texts]
    own = len(digests) == 1 and f"script-src 'sha256-{digests[0]}';" in page and page.count("<script") == 2
    blocked = "default-src 'none'" in page
    ledger.judge(fault, "" if own and blocked else "the page may run other scripts, or load files")
    ledger.judge(fault, "" if "=" in page and "&lt;script&gt;" in page else "the name is missing")
    text, command, _ = (report / "summary.md").read_text().partition("Written by nucseg")  # then an indented block
    assert command
    ledger.judge(fault, re.findall(r"(?<!\\)<\w", text))

    fault = "name: spreadsheet formula in per_image.csv"
    rows = list(csv.DictReader(io.StringIO((report / "per_image.csv").read_text())))
    cells = [row[name] for row in rows for name in ("dataset", "configuration", "run", "id", "group", "stratum")]
    ledger.judge(fault, [cell for cell in cells if cell[:1] in "=+-@"])
    ids = {row["id"].removeprefix("'") if row["id"][1:2] in ("=", "+", "-", "@") else row["id"] for row in rows}
    ledger.judge(fault, ids - set(IDS))


def nucseg(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


NAMES = (
    "../x", "..", ".", "/etc/x", "a/b", "a\\b", "~x", "", "a\nb", "C:\\x", "a/../../b", "-x", ".hidden", "a\0b",
    "x@../y",
)  # fmt: skip


def test_names_cannot_leave_their_folder(
    tmp_path: Path,
    events: dict[str, Any],
    folder: Path,
    ledger: Any,
    profile: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = "name: data set or run that leaves its folder"
    embed = ["embed", "--encoder", "none", "--source", folder / "source"]
    for name in profile.random(8).choice(NAMES, profile.trials(short=4, long=len(NAMES)), replace=False):
        for command in (embed, ["train"], ["fidelity"], ["distill"]):
            result = nucseg(*command, f"--dataset={name}", "--cache", tmp_path / "cache")
            refused = result.exit_code in (1, 2) and "dataset" in result.stderr and "Traceback" not in result.output
            wrong = "" if refused else f"{result.exit_code}, {result.exception!r}: {result.output[-400:]}"
            ledger.judge(fault, wrong, refused=True)
    assert not list(tmp_path.rglob("*"))

    monkeypatch.chdir(tmp_path)
    for name in ("../../x", "/etc/x", "a/../b")[: profile.trials(short=1, long=3)]:
        result = nucseg("report", folder / "run", "--name", name)
        ledger.judge(fault, "" if list(tmp_path.rglob("report.html")) else result.output[-300:])


@pytest.fixture
def store(events: dict[str, Any], folder: Path, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(folder / "cache" / "mine.zarr", tmp_path / "cache" / "mine.zarr"))


def edit_store(store: Path, node: str, change: Any, *, sealed_again: bool) -> None:
    """Change a document of the store. An attacker can seal it again: a seal is a digest without a secret."""
    file = store / node / "zarr.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    if sealed_again:
        seal(store, [f"samples/{path.parent.name}" for path in sorted((store / "samples").glob("*/zarr.json"))])


def seal(store: Path, arrays: list[str]) -> None:
    root = json.loads((store / "zarr.json").read_text())
    attributes = {name: value for name, value in root["attributes"].items() if name != "seal"}
    documents = {name: json.loads((store / name / "zarr.json").read_text()) for name in arrays}
    for document in documents.values():
        document["shape"] = document["shape"][1:]
    text = json.dumps(
        {"attributes": attributes, "arrays": documents}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    root["attributes"]["seal"] = xxhash.xxh3_128_hexdigest(text.encode())
    (store / "zarr.json").write_text(json.dumps(root))


def with_field(name: str, value: Any) -> Any:
    return lambda document: document.update({name: value})


def with_attribute(name: str, value: Any) -> Any:
    return lambda document: document["attributes"].update({name: value})


def with_codec(name: str) -> Any:
    return with_field("codecs", [{"name": name, "configuration": {}}])


EXTENSION = {"name": "evil", "configuration": {"run": "os.system"}}

EDITS = {
    "a codec that unpickles": ("samples/id", with_codec("numcodecs.pickle")),
    "a codec that unpickles, by its old name": ("samples/id", with_codec("pickle")),
    "an unknown codec": ("samples/image", with_codec("evil.codec")),
    "objects instead of numbers": ("samples/image", with_field("data_type", "object")),
    "objects by NumPy's letter": ("samples/image", with_field("data_type", "|O")),
    "an extension type": ("samples/image", with_field("data_type", EXTENSION)),
    "a source elsewhere": ("", with_attribute("source", "../../../etc")),
    "a data set outside the cache": ("", with_attribute("dataset", "../../x")),
}


@pytest.mark.parametrize("sealed_again", [False, True])
@pytest.mark.parametrize("edit", EDITS)
def test_malicious_stores(edit: str, sealed_again: bool, store: Path, ledger: Any, monkeypatch: Any) -> None:
    fault = "store: malicious codecs, types or paths"
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: ledger.lost(fault, f"{edit}: it was unpickled"))
    node, change = EDITS[edit]
    edit_store(store, node, change, sealed_again=sealed_again)
    before = {str(path) for path in store.parent.parent.rglob("*")}
    try:
        opened = Store.open(store)
        opened.read_samples(range(opened.n_rows))
    except CacheError:
        ledger.detected(fault)
    except Exception as error:
        ledger.lost(fault, f"{edit}: {error!r}")
    else:
        ledger.judge(fault, f"{edit}: it was read without an error" if node else "")
    for words in (["cache", "info", store], ["cache", "verify", store], ["cache", "prune", store]):
        result = nucseg(*words)
        crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
        ledger.judge(fault, f"{edit}, {words[1]}: {result.exception!r}" if crashed else "")
    deleted = sorted(before - {str(path) for path in store.parent.parent.rglob("*")})
    ledger.judge(fault, [] if node else deleted[:3])


def test_prune_does_not_follow_links(store: Path, tmp_path: Path, ledger: Any) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    for name in (f".left.{'0' * 32}.tmp", f"evil.{'0' * 32}.partial"):
        (store / "samples" / name).symlink_to(precious)
    (store / "embeddings" / ("0" * 16)).symlink_to(precious)
    for words in (
        ["cache", "prune", store],
        ["cache", "prune", store, "--key", "0" * 16],
        ["cache", "prune", store, "--key", "../../../precious"],
        ["cache", "prune", store, "--key", "0" * 16 + "/../../../precious"],
        ["cache", "verify", store],
    ):
        nucseg(*words)
    ledger.judge("store: links to other folders", "" if (precious / "file").exists() else "a linked file was deleted")


def test_zarr_reads_what_the_store_refuses(store: Path) -> None:
    """The edits have an effect: zarr, which does not check the seal, reads the changed attribute."""
    edit_store(store, "", with_attribute("source", "../../../etc"), sealed_again=False)

    assert zarr.open_group(store, mode="r").attrs["source"] == "../../../etc"
    with pytest.raises(CacheError, match="changed after they were written"):
        Store.open(store)
