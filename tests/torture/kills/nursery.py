"""Starts `nucseg` commands that have imported everything already: a fork for each, so that kills hit the work.

Reads one JSON object a line and answers each with a line: {"start": [argument, ...], "output": file} -> the process;
{"poll": process} -> how it ended, null while it runs. A fork has imported what a command imports, and done nothing
with it; from there on it does what `python -m nucseg_pipeline` does. With {"begun": file} it adds a byte to that file
for each image that it begins to encode, which nothing that is killed can tell otherwise.
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


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def answer(request: dict[str, Any]) -> int | None:
    """Do what is asked; in the new process return its own number, 0."""
    if "start" in request:
        sys.stdout.flush()
        return os.fork()
    process, status = os.waitpid(request["poll"], os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def become(arguments: list[str], output: str) -> None:
    """Be a process as a shell starts one: a group and an output of its own, no input."""
    os.setsid()
    for file, flags, places in ((os.devnull, os.O_RDONLY, (0,)), (output, os.O_WRONLY | os.O_APPEND, (1, 2))):
        opened = os.open(file, flags)
        for place in places:
            os.dup2(opened, place)
        os.close(opened)
    sys.argv = ["nucseg", *arguments]


def count_begun(file: str) -> None:
    """Have every encoder write down what it begins."""
    begun, run = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), Encoder.run

    def counting(encoder: Encoder, images: Sequence[Any]) -> Any:
        os.write(begun, b"." * len(images))
        return run(encoder, images)

    Encoder.run = counting  # type: ignore[method-assign]


def run() -> int:
    """What `python -m nucseg_pipeline` does."""
    try:
        runpy.run_module("nucseg_pipeline", run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else bool(ended.code)
    return 0


def end(status: int) -> None:
    """End as an interpreter does, but for taking thousands of modules apart, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Answer until nobody asks any more; the new processes leave the loop and become commands."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # the forks share this memory as long as nobody writes to it
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        answered = answer(request)
        if answered == 0 and "start" in request:
            become(request["start"], request["output"])
            if request["begun"]:
                count_begun(request["begun"])
            end(run())
        say(answered)


if __name__ == "__main__":
    main()
