"""Terminal output that the commands share: consoles, errors and exit statuses, progress, tables."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from nucseg_pipeline.progress import Progress

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that change the direction of writing, surrogates: file names may contain all of them."""


def printable(text: str) -> str:
    """Escape the characters that must not reach a terminal; line breaks and tabs are kept."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class SafeConsole(Console):
    """A console that prints names and paths unchanged, except for characters that control the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*map(_escaped, objects), **options)


def _escaped(printed: Any) -> Any:
    if isinstance(printed, Text):
        printed = printed.copy()
        printed.plain = printable(printed.plain)
    return printable(printed) if isinstance(printed, str) else printed


out = SafeConsole(highlight=False, markup=False, soft_wrap=True)
"""Standard output. Markup is off: paths and names may contain brackets."""

err = SafeConsole(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""Standard error."""

FAILED, INTERRUPTED = 1, 130

_KEPT = "Everything finished so far is kept; run the same command again to continue."
_NOT_KEPT = "No partial results were written; run the same command again to start over."
_AFTER_A_STOP = {
    **dict.fromkeys(("fetch", "embed", "ablate", "distill", "demo", "predict"), _KEPT),
    "train": "Every finished epoch is kept; run the same command with --resume to continue.",
}
"""What is left when a command stops early; commands that are not listed write all of their results at the end."""

_LESS_MEMORY = ("--batch-size", "--width", "--workers", "--jobs")
"""Options whose lower values need less memory."""

_PLAIN_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM: from `kill`, from Slurm before a time limit, from Kubernetes before a pod ends."""


class Commands(TyperGroup):
    """The commands; every error that the user can act on becomes one message and exit status 1, or its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; see the class."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except BaseException as error:
            interrupt = _interrupt_in(error)
            if interrupt is not None:
                how = "Stopped by SIGTERM" if isinstance(interrupt, Terminated) else "Interrupted"
                kept = (*getattr(interrupt, "__notes__", ()), _AFTER_A_STOP.get(ctx.invoked_subcommand, _NOT_KEPT))
                err.print(f"{how}. {' '.join(kept)}")
                raise typer.Exit(INTERRUPTED) from None
            if not _is_for_the_user(error):
                raise
            err.print(Text.assemble(("error: ", "bold red"), self._message(error, ctx.invoked_subcommand)))
            raise typer.Exit(getattr(error, "exit_status", FAILED)) from None

    def _message(self, error: BaseException, command: str) -> str:
        from nucseg.adaptive_batch import lacks_memory, reason
        from nucseg.errors import NucsegError

        if lacks_memory(error) and not isinstance(error, NucsegError):
            flags = {flag for parameter in self.commands[command].params for flag in parameter.opts}
            useful = [flag for flag in _LESS_MEMORY if flag in flags]
            way_out = f"Lower {' or '.join(useful)}, or close" if useful else "Close"
            return f"there is not enough memory ({reason(error)}). {way_out} other programs that use it."
        if isinstance(error, OSError) and error.strerror:
            place = f": {error.filename}" if error.filename else ""
            return f"{error.strerror}{place}. Fix this first. {_AFTER_A_STOP.get(command, _NOT_KEPT)}"
        return str(error)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; a second one is ignored, so that cleaning up is not interrupted.

    A handler that is set already stays, and so does SIG_IGN.
    """
    is_default = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_default:
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
    """The interrupt that an error is or was caused by: an interrupted import raises ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _is_for_the_user(error: BaseException) -> bool:
    """Whether the user can act on it. The packages are imported only when something has failed."""
    from nucseg.adaptive_batch import lacks_memory
    from nucseg.errors import NucsegError
    from nucseg_cache import CacheError

    if isinstance(error, BrokenPipeError):
        return False  # the reader of the output has closed the pipe: click exits quietly
    return isinstance(error, NucsegError | CacheError | OSError) or lacks_memory(error)


@contextmanager
def progress_bar(unit: str = "images", **units: str) -> Iterator[Progress]:
    """Yield a callback that shows the progress of a stage: a bar in a terminal, lines elsewhere.

    Args:
        unit: what is counted, for the rate.
        units: step -> what it counts, where that differs.
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
    """Format a duration as minutes and seconds, 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table; the first column is aligned left, the others right, and nothing is read as markup."""
    result = Table(title=Text(printable(title)), title_justify="left")
    for i, column in enumerate(columns):
        result.add_column(Text(printable(column)), justify="right" if i else "left")
    for row in rows:
        result.add_row(*(Text(printable(str(cell))) for cell in row))
    return result


def listing(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table without a title whose cells are folded, with a line between the rows."""
    result = table("", columns, rows)
    result.title, result.show_lines = None, True
    for column in result.columns:
        column.justify, column.overflow = "left", "fold"
    return result


def notes(lines: Sequence[str]) -> None:
    """Print notes to standard error, one per line."""
    for line in lines:
        err.print(Text.assemble(("note: ", "bold yellow"), line))
