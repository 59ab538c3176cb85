"""A whole pipeline in a process whose audit events are counted; run by test_security.py, prints JSON.

    python audited.py FOLDER MARK MORE...

FOLDER is where everything may be written, MARK a text that stands in the data; MORE are further options of `embed`.
"""

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

SEEN: dict[str, list[str]] = {"pickle": [], "socket": [], "process": [], "written": [], "code": []}
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(mark: str) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            SEEN["pickle"].append(".".join(map(str, arguments[-2:])))
        elif event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
            SEEN["socket"].append(f"{event} {arguments[-1] if event != 'socket.getaddrinfo' else arguments[0]}")
        elif event in PROCESSES:
            SEEN["process"].append(f"{event} {arguments[0] if arguments else ''}")
        elif event in CHANGES or event == "os.rename":
            SEEN["written"] += [placed(one, arguments) for one in arguments[: 2 if event == "os.rename" else 1]]
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            SEEN["written"].append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")
        elif event in ("compile", "exec") and mark in str(arguments[0])[:100_000]:
            SEEN["code"].append(f"{event} {str(arguments[0])[:100]!r}")

    sys.addaudithook(hook)


def placed(path: Any, arguments: tuple[Any, ...]) -> str:
    """A path in full, also where it is told beside an open folder, as by `shutil.rmtree`."""
    beside = arguments[-1] if len(arguments) > 1 and isinstance(arguments[-1], int) else -1
    opened = Path(f"/proc/self/fd/{beside}")
    folder = opened.readlink() if beside >= 0 and opened.exists() else Path()
    return str(folder / os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""


def main(folder: Path, mark: str, more: list[str]) -> None:
    watch(mark)  # before anything is imported
    pickle.loads(pickle.dumps(len))  # shows that the hook sees what it is to see
    from typer.testing import CliRunner

    from nucseg_pipeline.cli import app

    cache, run, small = folder / "cache", folder / "run", ["--encoder", "random", "--threads", "1"]
    store = cache / "mine.zarr"
    named = ["--dataset", "mine", "--cache", str(cache)]
    statuses = {}
    for words in (
        ["embed", *named, *small, "--source", str(folder / "source"), *more],
        ["train", *named, *small, "--width", "1", "--epochs", "1", "--device", "cpu", "--run", str(run)],
        ["train", *named, *small, "--width", "1", "--epochs", "1", "--device", "cpu", "--run", str(run), "--resume"],
        ["report", str(run), "--out", str(folder / "report"), "--name", f"=<script>{mark}</script>"],
        ["cache", "verify", str(store)],
        ["cache", "info", str(store)],
        ["cache", "prune", str(store)],
    ):
        result = CliRunner().invoke(app, words)
        statuses[" ".join(words[:2])] = [result.exit_code, result.output[-500:] if result.exit_code else ""]
    print(json.dumps({**SEEN, "statuses": statuses}))  # noqa: T201 - what it is run for


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
