"""What comes with data, caches and runs of others can do nothing but be read."""

import base64
import csv
import io
import json
import os
import re
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
"""Python, should anything compile or run what stands in the data."""

WATCHED = "builtins.len"
"""What the watched process unpickles itself, to show that this is seen."""

IDS = (
    f"={MARK}",
    "<script>alert(1)<script>",
    "@SUM(1)",
    "-2+3",
    "+1",
    "'\"><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "[x](javascript:alert(1))",
    "a|b",
    "plain",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten images whose names would do harm wherever they are taken for more than text."""
    folder = tmp_path_factory.mktemp("audited")
    drawn = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    for name in IDS:
        Image.fromarray(drawn.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / "source/images" / f"{name}.png")
        mask = np.zeros((48, 48), np.uint8)
        mask[4:20, 4:20] = mask[30:40, 30:40] = 255
        Image.fromarray(mask).save(folder / "source/masks" / f"{name}.png")
    return folder


def audited(folder: Path, *more: str) -> dict[str, Any]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (folder / "temporary").mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(folder / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):  # the last one torch itself sets
        environment.pop(name, None)
    environment["PYTHONPATH"] = os.pathsep.join(one for one in sys.path if one)
    script = Path(__file__).with_name("audited.py")
    done = subprocess.run(
        [sys.executable, "-P", script, folder, MARK, *more],
        cwd=home,
        env=environment,
        text=True,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert {status for status, _ in seen["statuses"].values()} == {0}, seen["statuses"]
    return seen


@pytest.fixture(scope="module")
def seen(source: Path) -> dict[str, Any]:
    return audited(source)


def judge(ledger: Any, fault: str, wrong: object) -> None:
    ledger.lost(fault, str(wrong)) if wrong else ledger.survived(fault)


def outside(seen: dict[str, Any], folder: Path) -> list[str]:
    """What was written where nothing of ours belongs; matplotlib keeps its list of fonts in the user's cache."""
    fonts = re.compile(re.escape(str(folder / "home")) + r"/\.(cache|config)(/matplotlib(/.*)?)?$")
    places = [str(folder / name) for name in ("cache", "run", "report", "temporary")]
    return sorted(
        path
        for path in {os.path.realpath(one) if one.startswith("/") else one for one in seen["written"]}
        if path not in ("", "/dev/null")
        and not fonts.match(path)
        and not any(path == place or path.startswith(f"{place}/") for place in places)
        and not path.startswith("/proc/self/")
    )


def test_a_whole_pipeline_does_nothing_but_its_work(seen: dict[str, Any], source: Path, ledger: Any) -> None:
    judge(ledger, "code in data, caches and checkpoints: unpickled", [one for one in seen["pickle"] if one != WATCHED])
    assert WATCHED in seen["pickle"]
    judge(ledger, "code in data, caches and checkpoints: compiled or run", seen["code"])
    judge(ledger, "network used by embed, train, report", [one for one in seen["socket"] if not is_loopback(one)])
    judge(ledger, "processes started by embed, train, report", [one for one in seen["process"] if "fc-list" not in one])
    judge(ledger, "files written elsewhere by embed, train, report", outside(seen, source))
    judge(ledger, "code in data, caches and checkpoints: run", list(source.rglob("pwned")))


def is_loopback(event: str) -> bool:
    """urllib3 binds once on import, to see whether there is IPv6."""
    return bool(re.match(r"socket\.bind \('(::1|127\.0\.0\.1)'", event))


def test_workers_meet_on_the_loopback_alone(source: Path, profile: Any, ledger: Any) -> None:
    if profile.name == "short":
        pytest.skip("starts processes of its own; tried by the long profile")
    folder = source.parent / "with workers"
    folder.mkdir()
    (folder / "source").symlink_to(source / "source")
    seen = audited(folder, "--workers", "2")

    places = [
        one
        for one in seen["socket"]
        if not re.search(r"'(::1|127\.0\.0\.1|localhost|/.*)'|^.*getaddrinfo (127|::1)", one)
    ]
    judge(ledger, "network used by embed --workers", places)
    judge(ledger, "files written elsewhere by embed --workers", outside(seen, folder))


class Scripts(HTMLParser):
    """Elements and attributes of a page that would run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        links = [value for name, value in attrs if name in ("href", "src") and value]
        if tag == "script" and dict(attrs) not in ({}, {"type": "application/json", "id": "data"}):
            self.found.append(tag)
        self.found += [tag] if tag in ("iframe", "object", "embed", "base", "form", "link") else []
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.found += [one[:60] for one in links if not one.startswith(("data:image/", "#"))]


def test_names_are_inert_in_a_report(seen: dict[str, Any], source: Path, ledger: Any) -> None:
    report = source / "report"
    page = (report / "report.html").read_text()
    scripts = Scripts()
    scripts.feed(page)
    judge(ledger, "HTML in names of images and runs", scripts.found)
    digests = [
        base64.b64encode(sha256(one.encode()).digest()).decode()
        for one in re.findall("(?s)<script>(.*?)</script>", page)
    ]
    own = len(digests) == 1 and f"script-src 'sha256-{digests[0]}';" in page and page.count("<script") == 2
    judge(ledger, "HTML in names of images and runs", "" if own else "a script may run that is not the page's own")
    judge(
        ledger, "HTML in names of images and runs", "" if "default-src 'none'" in page else "the page may load things"
    )
    shown = {"=", "&lt;script&gt;"}
    judge(
        ledger, "HTML in names of images and runs", "" if all(one in page for one in shown) else "the name is not shown"
    )

    summary = (report / "summary.md").read_text().split("Made by nucseg")[0]
    judge(ledger, "HTML in names of images and runs", re.findall(r"(?<!\\)<\w", summary))

    rows = list(csv.DictReader(io.StringIO((report / "per_image.csv").read_text())))
    cells = [row[name] for row in rows for name in ("dataset", "configuration", "run", "id", "group", "stratum")]
    judge(ledger, "formulas in names, for spreadsheets", [one for one in cells if one[:1] in "=+-@"])
    ids = {row["id"].removeprefix("'") if row["id"][1:2] in ("=", "+", "-", "@") else row["id"] for row in rows}
    judge(ledger, "formulas in names, for spreadsheets", ids - set(IDS))


def nucseg(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(ledger: Any, fault: str, result: Result, naming: str) -> None:
    if result.exit_code in (1, 2) and naming in result.stderr and "Traceback" not in result.output:
        ledger.detected(fault)
    else:
        ledger.lost(fault, f"{result.exit_code}, {result.exception!r}: {result.output[-400:]}")


NAMES = (
    "../x",
    "..",
    ".",
    "/etc/x",
    "a/b",
    "a\\b",
    "~x",
    "",
    "a\nb",
    "C:\\x",
    "a/../../b",
    "-x",
    ".hidden",
    "a\0b",
    "x@../y",
)


def test_names_cannot_leave_their_folder(
    tmp_path: Path, seen: dict[str, Any], source: Path, ledger: Any, profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = "name of a data set or run that leaves its folder"
    before = sorted(str(one) for one in tmp_path.rglob("*"))
    for name in NAMES:
        for command in (
            ["embed", "--encoder", "none", "--source", source / "source"],
            ["train"],
            ["fidelity"],
            ["distill"],
        ):
            refused(ledger, fault, nucseg(*command, f"--dataset={name}", "--cache", tmp_path / "cache"), "dataset")
    assert sorted(str(one) for one in tmp_path.rglob("*")) == before

    monkeypatch.chdir(tmp_path)
    for name in ("../../x", "/etc/x", "a/../b")[: profile.trials(short=1, long=3)]:
        done = nucseg("report", source / "run", "--name", name)
        reports = list(tmp_path.rglob("report.html"))
        judge(ledger, fault, "" if reports and tmp_path in reports[0].parents else done.output[-300:])


@pytest.fixture
def store(seen: dict[str, Any], source: Path, tmp_path: Path) -> Path:
    """A copy of the store that may be changed."""
    import shutil

    return Path(shutil.copytree(source / "cache" / "mine.zarr", tmp_path / "cache" / "mine.zarr"))


def edited(store: Path, place: str, change: Any, *, sealed_again: bool) -> None:
    """Change a document of the store; an attacker would seal it again, since a seal is no secret."""
    file = store / place / "zarr.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    if sealed_again:
        seal(store, [f"samples/{one.parent.name}" for one in sorted((store / "samples").glob("*/zarr.json"))])


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


def with_codec(name: str) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["codecs"] = [{"name": name, "configuration": {}}]

    return change


def with_type(name: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["data_type"] = name

    return change


def outward(document: dict[str, Any]) -> None:
    document["attributes"]["source"] = "../../../etc"


def renamed(document: dict[str, Any]) -> None:
    document["attributes"]["dataset"] = "../../x"


EDITS = {
    "a codec that unpickles": ("samples/id", with_codec("numcodecs.pickle")),
    "a codec that unpickles, by its old name": ("samples/id", with_codec("pickle")),
    "a codec that nobody knows": ("samples/image", with_codec("evil.codec")),
    "objects for numbers": ("samples/image", with_type("object")),
    "objects by NumPy's letter": ("samples/image", with_type("|O")),
    "a type of an extension": ("samples/image", with_type({"name": "evil", "configuration": {"run": "os.system"}})),
    "a source elsewhere": ("", outward),
    "a data set that wanders": ("", renamed),
}


@pytest.mark.parametrize("sealed_again", [False, True])
@pytest.mark.parametrize("edit", EDITS)
def test_stores_of_others(edit: str, sealed_again: bool, store: Path, ledger: Any, monkeypatch: Any) -> None:
    import pickle

    monkeypatch.setattr(pickle, "loads", lambda *a, **k: ledger.lost(edit, "it was unpickled"))
    place, change = EDITS[edit]
    edited(store, place, change, sealed_again=sealed_again)
    fault = "store of others with codecs, types or paths that do harm"
    before = sorted(str(one) for one in store.parent.parent.rglob("*"))
    try:
        opened = Store.open(store)
        opened.read_samples(range(opened.n_rows))
    except CacheError:
        ledger.detected(fault)
    except Exception as error:
        ledger.lost(fault, f"{edit}: {error!r}")
    else:
        judge(ledger, fault, "" if not place else f"{edit}: read as if nothing was wrong")
    for words in (["cache", "info", store], ["cache", "verify", store], ["cache", "prune", store]):
        result = nucseg(*words)
        crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
        judge(ledger, fault, f"{edit}, {words[1]}: {result.exception!r}" if crashed else "")
    left = set(before) - {str(one) for one in store.parent.parent.rglob("*")}
    judge(ledger, fault, sorted(left)[:3] if left and not place else "")


def test_links_in_a_store_are_not_pruned_through(store: Path, tmp_path: Path, ledger: Any) -> None:
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
    judge(ledger, "links in a store of others", "" if (precious / "file").exists() else "what it leads to was deleted")


def test_zarr_would_read_what_is_refused(store: Path) -> None:
    """The edits are real ones: without the seal zarr itself takes the attributes as they are."""
    edited(store, "", outward, sealed_again=False)

    assert zarr.open_group(store, mode="r").attrs["source"] == "../../../etc"
    with pytest.raises(CacheError, match="changed after they were written"):
        Store.open(store)
