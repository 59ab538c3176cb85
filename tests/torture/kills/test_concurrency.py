"""Several commands on one store or run at once: readers get complete rows or none, and writers do not interfere."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_cache import CacheError, EmbeddingNotFound, RowDamaged, Store, StoreNotFound

NewWorkspace = Callable[..., Any]
Contents = Mapping[tuple[str, str], Any]
"""Images and embeddings by (`sample` or the format, digest of the image)."""

FORMATS = ((), ("--format", "i8"))
"""Options of the two embeds of each store here."""


@pytest.fixture(scope="module")
def filled(embedded: Any, new_workspace: NewWorkspace) -> Any:
    """A workspace with embeddings in f16 and i8."""
    workspace = new_workspace(embedded[0].dataset).copy_store(embedded[0])
    workspace.embed("--format", "i8").seconds()
    return workspace


@pytest.fixture(scope="module")
def expected(filled: Any, new_workspace: NewWorkspace) -> Contents:
    """Everything that a reader may get: all images as drawn, and as repainted."""
    repainted = new_workspace()
    for number in range(Store.open(filled.store).n_rows):
        repainted.dataset.repaint(number, version=1)
    repainted.embed().seconds()
    return {name: value for place in (filled, repainted) for name, value in contents(Store.open(place.store))}


def contents(store: Store) -> Iterator[tuple[tuple[str, str], Any]]:
    """Everything that a reader gets from a store, without the rows that it cannot read."""
    good, _ = store.try_read_samples([info.row for info in store.trusted_rows()])
    for sample in good:
        yield ("sample", sample.image_digest.hex()), sample.image
    for key in store.keys():  # noqa: SIM118 - a method of Store, which is no dictionary
        embeddings = store.embeddings(key)
        try:
            infos = embeddings.embedded_rows()
            values, bad = embeddings.try_read([info.row for info in infos])
        except EmbeddingNotFound:  # deleted meanwhile
            continue
        unreadable = {damaged.row for damaged in bad}
        for info, value in zip(infos, values, strict=True):
            if info.row not in unreadable:
                yield (key.fields["format"], info.image_digest.hex()), value


def read_during(commands: Sequence[Any], store: Path, expected: Contents) -> str:
    """Read a store while commands run; the first wrong value or error, empty if there was none."""
    while any(command.poll() is None for command in commands):
        time.sleep(0.05)
        try:
            for name, value in contents(Store.open(store)):
                if not np.array_equal(value, expected[name]):
                    return f"{name} has a wrong value"
        except (StoreNotFound, RowDamaged):
            continue  # not created yet, or a row is being written
        except CacheError as error:
            return f"nothing is damaged, but: {error}"
    return ""


def complete(workspace: Any, formats: Sequence[Sequence[object]] = FORMATS) -> str:
    """Embed what is missing; the output of the first command that fails, or the damage that is left."""
    failures = (workspace.embed(*options).failure() for options in formats)
    why: str = next(filter(None, failures), "") or workspace.damage()
    return why


def unexpected_failure(command: Any) -> str:
    """The output of a command that failed, unless another command was the reason."""
    refusals = ("another process is writing to", "There is no store at", "no store")
    failure: str = command.failure()
    return "" if command.wait() > 0 and any(text in failure for text in refusals) else failure


# ---- readers


WRITERS = ("embed replaces images", "cache verify clears rows", "embed fills a store", "cache prune deletes a key")


def start_writer(what: str, new_workspace: NewWorkspace, filled: Any, random: Any) -> tuple[Any, Any]:
    """A workspace, and a command that writes to its store."""
    if what == "embed fills a store":
        workspace = new_workspace(filled.dataset)
        return workspace, workspace.embed()
    if what == "embed replaces images":
        workspace = new_workspace().copy_store(filled)
        for number in random.choice(4, 2, replace=False):
            workspace.dataset.repaint(int(number), version=1)
        return workspace, workspace.embed()
    workspace = new_workspace(filled.dataset).copy_store(filled)
    if what == "cache verify clears rows":
        workspace.damage_value(int(random.integers(4)))
        return workspace, workspace.nucseg("cache", "verify", workspace.store)
    keys = sorted(folder.name for folder in workspace.store.glob("embeddings/*") if folder.is_dir())
    return workspace, workspace.nucseg("cache", "prune", workspace.store, "--key", keys[random.integers(2)])


def test_readers_get_a_complete_row_or_none(
    new_workspace: NewWorkspace, filled: Any, expected: Contents, profile: Any, ledger: Any
) -> None:
    for trial in range(profile.trials(short=1, long=32)):
        what = WRITERS[trial % len(WRITERS)]
        workspace, command = start_writer(what, new_workspace, filled, profile.random(20, trial))
        wrong = read_during([command], workspace.store, expected)
        status = 1 if "verify" in what else 0
        wrong = wrong or (command.text if command.wait() != status else "")
        ledger.judge(f"read while {what}", wrong or complete(workspace))


# ---- writers


PAIRS: dict[str, Callable[[Any], Any]] = {
    "two embeds of two keys": lambda workspace: workspace.embed("--format", "i8"),
    "embed during cache verify": lambda workspace: workspace.nucseg("cache", "verify", workspace.store),
    "two embeds of one key": lambda workspace: workspace.embed(),
    "embed during cache prune": lambda workspace: workspace.nucseg("cache", "prune", workspace.store),
}
"""The second command, which is started while an `embed` runs."""


def test_two_writers_do_not_interfere(
    new_workspace: NewWorkspace, filled: Any, expected: Contents, profile: Any, ledger: Any
) -> None:
    for trial in range(profile.trials(short=1, long=32)):
        pair = list(PAIRS)[trial % len(PAIRS)]
        workspace, n_begun = new_workspace(filled.dataset), profile.random(21, trial).integers(-1, 4)
        commands = [workspace.embed().until(lambda: workspace.n_begun() > n_begun)]  # noqa: B023 - called at once
        commands.append(PAIRS[pair](workspace))
        wrong = read_during(commands, workspace.store, expected) or "".join(map(unexpected_failure, commands))
        ledger.judge(pair, wrong or complete(workspace) or workspace.differences(filled))


def test_prune_of_a_key_during_its_embed_is_refused_or_repaired(
    new_workspace: NewWorkspace, filled: Any, expected: Contents, profile: Any, ledger: Any
) -> None:
    key = Store.open(filled.store).find({"format": "f16"}).hash
    for trial in range(profile.trials(short=1, long=8)):
        workspace = new_workspace(filled.dataset).copy_store(filled)
        n_begun = profile.random(22, trial).integers(-1, 4)
        for file in workspace.store.glob(f"embeddings/{key}/identity/record/c/0/0"):
            file.unlink()  # all rows are then embedded again
        embed = workspace.embed().until(lambda: workspace.n_begun() > n_begun)  # noqa: B023 - called at once
        commands = [embed, workspace.nucseg("cache", "prune", workspace.store, "--key", key)]
        wrong = read_during(commands, workspace.store, expected) or "".join(map(unexpected_failure, commands))
        wrong = wrong or complete(workspace, FORMATS[:1]) or workspace.differences(filled)
        ledger.judge("embed during cache prune of its key", wrong)


# ---- trainings


def test_trainings_in_one_folder(
    filled: Any, new_workspace: NewWorkspace, tmp_path: Path, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=2)
    filled.train(tmp_path / "alone", "--format", "f16").seconds()
    for trial in range(n_trials):
        run, workspace = tmp_path / f"{trial}", new_workspace(filled.dataset).copy_store(filled)
        both = [workspace.train(run, "--format", "f16"), workspace.train(run, "--format", "f16")]
        embed = workspace.embed("--format", "i6")
        failures = list(filter(None, (command.failure() for command in both)))
        refused = len(failures) == 1 and "Another process is training in" in failures[0]
        wrong = "" if refused else f"{len(failures)} of 2 failed: {failures}"
        if not wrong and (run / "best.pt").read_bytes() != (tmp_path / "alone" / "best.pt").read_bytes():
            wrong = "the weights differ from those of a single training"
        ledger.judge("two trainings into one folder", wrong)
        ledger.judge("train during embed", wrong or embed.failure())
