"""What commands share in talking to a person: errors, progress, tables. The only home of exit statuses."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would steer the terminal, turn the direction of writing, or is no text: names of files may hold all of it."""


def printable(text: str) -> str:
    """A text with escapes in place of what must not reach a terminal; line breaks stay, tabs too."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Plain(Console):
    """A console that prints names and paths as they are, but lets none of them steer the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        super().print(*map(_escaped, objects), **options)


def _escaped(printed: Any) -> Any:
    if isinstance(printed, Text):
        printed = printed.copy()
        printed.plain = printable(printed.plain)
    return printable(printed) if isinstance(printed, str) else printed


out = Plain(highlight=False, markup=False, soft_wrap=True)
"""Standard output. Markup is off: paths and names may hold brackets."""

err = Plain(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""Standard error."""

FAILED, INTERRUPTED = 1, 130

KEPT = "Everything finished so far is kept; the same command goes on from there."
KEPT_BY_TRAIN = "Every finished epoch is kept; the same command with --resume goes on from there."
NOT_KEPT = "Nothing was written by halves; the same command begins again."

RESUMING = {
    **dict.fromkeys(("fetch", "embed", "ablate", "distill", "demo", "predict"), KEPT),
    "train": KEPT_BY_TRAIN,
}
"""What commands say that go on where they stopped; the others write all of their result at the end."""

Progress = Callable[[int, int, str], None]

_PLAIN_SECONDS = 10.0
"""Least time between two plain lines of progress where there is no terminal."""


class Terminated(KeyboardInterrupt):
    """The process was told to end: by `kill`, by Slurm before the time is up, by Kubernetes before a pod goes."""


class Commands(TyperGroup):
    """The commands, with every error that the user can act on turned into one message and exit status 1, or its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; see the class."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except BaseException as error:
            interrupt = _interrupt_in(error)
            if interrupt is not None:
                how = "Stopped by SIGTERM" if isinstance(interrupt, Terminated) else "Interrupted"
                err.print(f"{how}. {RESUMING.get(ctx.invoked_subcommand, NOT_KEPT)}")
                raise typer.Exit(INTERRUPTED) from None
            if not _is_the_users(error):
                raise
            err.print(Text.assemble(("error: ", "bold red"), _message(error)))
            raise typer.Exit(getattr(error, "exit_status", FAILED)) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; a second one does not disturb the first.

    Where somebody else handles SIGTERM, or it is ignored, that stays so.
    """
    is_ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_ours:
        yield
        return

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or that it came of: an import that is interrupted fails as ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _is_the_users(error: BaseException) -> bool:
    """Whether the user can act on it; the packages are imported only once something has failed."""
    from nucseg.adaptive_batch import lacks_memory
    from nucseg.errors import NucsegError
    from nucseg_cache import CacheError

    if isinstance(error, BrokenPipeError):
        return False  # the reader of our output has left: click ends quietly
    return isinstance(error, NucsegError | CacheError | OSError) or lacks_memory(error)


def _message(error: BaseException) -> str:
    from nucseg.adaptive_batch import lacks_memory, reason
    from nucseg.errors import NucsegError

    if lacks_memory(error) and not isinstance(error, NucsegError):
        way_out = "Take a smaller --batch-size or --width, or close what else uses it."
        return f"there is not enough memory ({reason(error)}). {way_out}"
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}. Everything finished so far is kept; mend that and run the command again."
    return str(error)


@contextmanager
def progress_bar(unit: str = "images", **units: str) -> Iterator[Progress]:
    """A callback that shows how far a stage is: a bar with a rate and a time to go, or plain lines elsewhere.

    Counted is in `unit`, but for steps of these names in theirs.
    """
    if not out.is_terminal:
        yield _plain(unit, units)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=out) as bars:
        tasks: dict[str, tuple[Any, float]] = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, rate=""), time.monotonic()
            task, started = tasks[what]
            bars.update(
                task, completed=done, total=total, rate=_rate(done, time.monotonic() - started, units.get(what, unit))
            )

        yield show


def _plain(unit: str, units: Mapping[str, str]) -> Progress:
    started: dict[str, float] = {}
    last: dict[str, float] = {}

    def show(done: int, total: int, what: str) -> None:
        now = time.monotonic()
        first = what not in started
        begun = started.setdefault(what, now)
        if first or done == total or now - last[what] >= _PLAIN_SECONDS:
            last[what] = now
            seconds = now - begun
            left = f", {clock((total - done) * seconds / done)} to go" if 0 < done < total and seconds > 1 else ""
            out.print(f"{what}: {done} of {total}  {_rate(done, seconds, units.get(what, unit))}{left}")

    return show


def _rate(done: int, seconds: float, unit: str) -> str:
    return f"{done / seconds:.2f} {unit}/s" if done and seconds > 1 else ""


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are numbers, nothing of it read as markup."""
    made = Table(title=Text(printable(title)), title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(Text(printable(column)), justify="right" if i else "left")
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    return made


def notes(lines: Sequence[str]) -> None:
    """Things to know, one a line."""
    for line in lines:
        err.print(Text.assemble(("note: ", "bold yellow"), line))
