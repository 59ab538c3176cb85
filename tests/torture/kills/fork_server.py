"""Starts `nucseg` commands as forks of a process that has imported their modules, so that kills hit the work itself.

Reads one JSON object per line, and answers each with one line:

    {"start": [argument, ...], "modules": [name, ...], "output": file, "begun": file or null} -> process id
    {"poll": process id} -> exit status, or null while it runs

The server imports the modules once; a fork then does what `python -m nucseg_pipeline` does. It appends a byte to the
file `begun` for each image whose encoding begins, so that tests can count the images of processes that were killed.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import threading
from collections.abc import Sequence
from typing import Any

from nucseg.encoders import Encoder


def send(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def answer(request: dict[str, Any]) -> int | None:
    """The answer to a request; 0 in a forked process."""
    if "start" in request:
        for module in request["modules"]:
            importlib.import_module(module)
        gc.freeze()  # forks share this memory until one writes to it
        return os.fork()
    process, status = os.waitpid(request["poll"], os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def detach(arguments: list[str], output: str) -> None:
    """Set up the process as a shell would: its own process group, its own output, no input."""
    os.setsid()
    for file, flags, descriptors in ((os.devnull, os.O_RDONLY, (0,)), (output, os.O_WRONLY | os.O_APPEND, (1, 2))):
        opened = os.open(file, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["nucseg", *arguments]


def count_begun(file: str) -> None:
    """Make every encoder record the images it begins."""
    begun, run = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), Encoder.run

    def counting(encoder: Encoder, images: Sequence[Any]) -> Any:
        os.write(begun, b"." * len(images))
        return run(encoder, images)

    Encoder.run = counting  # type: ignore[method-assign]


def run() -> int:
    """Do what `python -m nucseg_pipeline` does; returns the exit status."""
    try:
        runpy.run_module("nucseg_pipeline", run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else bool(ended.code)
    return 0


def end(status: int) -> None:
    """End like an interpreter, without destroying thousands of modules, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Answer requests until the input ends; forked processes leave the loop and run their command."""
    for line in sys.stdin:
        request = json.loads(line)
        answered = answer(request)
        if answered == 0 and "start" in request:
            detach(request["start"], request["output"])
            if request["begun"]:
                count_begun(request["begun"])
            end(run())
        send(answered)


if __name__ == "__main__":
    main()
