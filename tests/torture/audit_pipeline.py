"""Runs a whole pipeline, records Python's audit events and prints them as JSON; started by test_security.py.

    python audit_pipeline.py FOLDER MARK ENCODER OPTION...

FOLDER has the images and gets the results, MARK is a text in the names of the images, OPTION is added to `embed`.
"""

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

EVENTS: dict[str, list[str]] = {"pickle": [], "socket": [], "process": [], "written": [], "code": []}
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(mark: str) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            EVENTS["pickle"].append(".".join(map(str, arguments[-2:])))
        elif event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
            EVENTS["socket"].append(f"{event} {arguments[-1] if event != 'socket.getaddrinfo' else arguments[0]}")
        elif event in PROCESSES:
            EVENTS["process"].append(f"{event} {arguments[0] if arguments else ''}")
        elif event in CHANGES or event == "os.rename":
            EVENTS["written"] += [full_path(path, arguments) for path in arguments[: 2 if event == "os.rename" else 1]]
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            EVENTS["written"].append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")
        elif event in ("compile", "exec") and mark in str(arguments[0])[:100_000]:
            EVENTS["code"].append(f"{event} {str(arguments[0])[:100]!r}")

    sys.addaudithook(hook)


def full_path(path: Any, arguments: tuple[Any, ...]) -> str:
    """The full path, also of a name relative to an open folder, as in `shutil.rmtree`."""
    descriptor = arguments[-1] if len(arguments) > 1 and isinstance(arguments[-1], int) else -1
    opened = Path(f"/proc/self/fd/{descriptor}")
    folder = opened.readlink() if descriptor >= 0 and opened.exists() else Path()
    return str(folder / os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""


def main(folder: Path, mark: str, encoder: str, options: list[str]) -> None:
    watch(mark)  # before anything is imported
    pickle.loads(pickle.dumps(len))  # an event that the test expects, so that it notices a hook that does not work
    from typer.testing import CliRunner

    from nucseg_pipeline.cli import app

    cache, run, small = folder / "cache", folder / "run", ["--encoder", encoder, "--threads", "1"]
    store = cache / "mine.zarr"
    named = ["--dataset", "mine", "--cache", str(cache)]
    statuses = {}
    for words in (
        ["embed", *named, *small, "--source", str(folder / "source"), *options],
        ["train", *named, *small, "--width", "1", "--epochs", "1", "--device", "cpu", "--run", str(run)],
        ["train", *named, *small, "--width", "1", "--epochs", "1", "--device", "cpu", "--run", str(run), "--resume"],
        ["report", str(run), "--out", str(folder / "report"), "--name", f"=<script>{mark}</script>"],
        ["cache", "verify", str(store)],
        ["cache", "info", str(store)],
        ["cache", "prune", str(store)],
    ):
        result = CliRunner().invoke(app, words)
        statuses[" ".join(words[:2])] = [result.exit_code, result.output[-500:] if result.exit_code else ""]
    print(json.dumps({**EVENTS, "statuses": statuses}))  # noqa: T201 - the output of this program


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4], sys.argv[4:])
