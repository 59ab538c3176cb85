"""Several commands at once on one store or run: readers see nothing or the whole row, two writers never mix."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_cache import CacheError, EmbeddingNotFound, RowDamaged, Store, StoreNotFound

PRELOADED = ("nucseg_pipeline.embed.stage", "pydantic", "torch")

Places = Callable[..., Any]
EmbeddingDataset = dict[tuple[str, str], Any]
"""Samples and embeddings by what they are of: the format or `sample`, and the digest of the image."""

VERSIONS = 2


@pytest.fixture(scope="module")
def filled(place_for_all: Places) -> Any:
    """A place with embeddings in f16, and beside them in i8."""
    made = place_for_all()
    for options in ((), ("--format", "i8")):
        command = made.embed(*options)
        assert command.wait() == 0, command.text
    return made


@pytest.fixture(scope="module")
def right(filled: Any, place_for_all: Places) -> EmbeddingDataset:
    """All that may ever be read: every image as it was drawn, and as it is painted over."""
    repainted = place_for_all()
    for number in range(len(Store.open(filled.store).table)):
        repainted.slides.repaint(number, version=1)
    assert repainted.embed().wait() == 0
    rows: EmbeddingDataset = {}
    for place in (filled, repainted):
        for what, value in everything_in(Store.open(place.store)):
            rows[what] = value
    return rows


def everything_in(store: Store) -> Iterator[tuple[tuple[str, str], Any]]:
    """All that a reader can get from a store; a row that it cannot have is left out."""
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
        unreadable = {one.row for one in bad}
        for info, value in zip(infos, values, strict=True):
            if info.row not in unreadable:
                yield (key.fields["format"], info.image_digest.hex()), value


def wrong_while(commands: Sequence[Any], store: Path, right: Mapping[tuple[str, str], Any]) -> str:
    """Read all the time while commands run; what was read that is not right, nothing if all was."""
    while any(command.poll() is None for command in commands):
        time.sleep(0.005)
        try:
            for what, value in everything_in(Store.open(store)):
                if not np.array_equal(value, right[what]):
                    return f"{what} is not what it should be"
        except (StoreNotFound, RowDamaged):
            continue  # nothing is there yet, or a row is just being written
        except CacheError as error:
            return f"nothing is damaged, but: {error}"
    return ""


def record(ledger: Any, fault: str, why: str) -> None:
    if why:
        ledger.lost(fault, why)
    else:
        ledger.survived(fault)


def copy_of(place: Any, empty: Any) -> Any:
    """A place with the store of another one."""
    shutil.copytree(place.store, empty.store)
    return empty


# ---- readers


def begin(what: str, place: Places, filled: Any, random: Any) -> tuple[Any, Any]:
    """A place, and a command that writes in it."""
    if what == "embed fills a store":
        writing = place(filled.slides)
        return writing, writing.embed()
    if what == "embed replaces images":
        writing = copy_of(filled, place())
        for number in random.choice(4, 2, replace=False):
            writing.slides.repaint(int(number), version=1)
        return writing, writing.embed()
    writing = copy_of(filled, place(filled.slides))
    if what == "cache verify clears rows":
        for values in writing.store.glob("embeddings/*/identity/values/c"):
            file = values / str(random.integers(4)) / "0/0/0"
            file.write_bytes(file.read_bytes()[:-1] + b"!")
        return writing, writing.nucseg("cache", "verify", writing.store)
    names = sorted(folder.name for folder in writing.store.glob("embeddings/*") if folder.is_dir())
    return writing, writing.nucseg("cache", "prune", writing.store, "--key", names[random.integers(2)])


WRITERS = ("embed replaces images", "cache verify clears rows", "embed fills a store", "cache prune deletes a key")


def test_readers_see_nothing_or_the_whole_row(
    place: Places, filled: Any, right: EmbeddingDataset, profile: Any, ledger: Any
) -> None:
    for trial in range(profile.trials(short=1, long=32)):
        what = WRITERS[trial % len(WRITERS)]
        writing, command = begin(what, place, filled, profile.random(20, trial))
        why = wrong_while([command], writing.store, right)
        expected = 1 if "verify" in what else 0
        why = why or (command.text if command.wait() != expected else "")
        for options in ((), ("--format", "i8")):  # mends what was cleared and deleted
            last = writing.embed(*options)
            why = why or (last.text if last.wait() else "")
        record(ledger, f"read while {what}", why or writing.trouble())


# ---- writers

KEYS = ((), ("--format", "i8"))


PAIRS: dict[str, Callable[[Any], Any]] = {
    "two embeds of two keys": lambda place: place.embed("--format", "i8"),
    "embed beside cache verify": lambda place: place.nucseg("cache", "verify", place.store),
    "two embeds of one key": lambda place: place.embed(),
    "embed beside cache prune": lambda place: place.nucseg("cache", "prune", place.store),
}
"""What is started beside an `embed`."""


def test_two_writers_never_mix(place: Places, filled: Any, right: EmbeddingDataset, profile: Any, ledger: Any) -> None:
    for trial in range(profile.trials(short=1, long=32)):
        pair = list(PAIRS)[trial % len(PAIRS)]
        random, shared = profile.random(21, trial), place(filled.slides)
        commands = [shared.embed()]
        commands[0].until(lambda: shared.n_begun() > random.integers(-1, 4))  # noqa: B023 - called at once
        commands.append(PAIRS[pair](shared))
        why = wrong_while(commands, shared.store, right)
        why = why or "".join(command.text for command in commands if not ended_as_it_may(command))
        for options in KEYS:
            last = shared.embed(*options)
            why = why or (last.text if last.wait() else "")
        record(ledger, pair, why or shared.trouble() or shared.differences(filled))


def ended_as_it_may(command: Any) -> bool:
    """Whether a command did its work, or said that it could not while another one was at it."""
    refused = ("another process is writing to", "There is no store at", "no store")
    return command.wait() == 0 or (command.wait() == 1 and any(text in command.text for text in refused))


def test_prune_of_a_key_that_is_being_embedded_is_refused_or_mended(
    place: Places, filled: Any, right: EmbeddingDataset, profile: Any, ledger: Any
) -> None:
    key = Store.open(filled.store).find({"format": "f16"}).hash
    for trial in range(profile.trials(short=1, long=8)):
        shared, random = copy_of(filled, place(filled.slides)), profile.random(22, trial)
        for file in shared.store.glob(f"embeddings/{key}/identity/record/c/0/0"):
            file.unlink()  # all of them are to be embedded again
        embed = shared.embed()
        embed.until(lambda: shared.n_begun() > random.integers(-1, 4))  # noqa: B023 - called at once
        prune = shared.nucseg("cache", "prune", shared.store, "--key", key)
        why = wrong_while([embed, prune], shared.store, right)
        why = why or "".join(command.text for command in (embed, prune) if not ended_as_it_may(command))
        last = shared.embed()
        why = why or (last.text if last.wait() else "")
        record(ledger, "embed beside cache prune of its key", why or shared.trouble() or shared.differences(filled))


# ---- trainings


def test_trainings_side_by_side(filled: Any, place: Places, tmp_path: Path, profile: Any, ledger: Any) -> None:
    n_trials = profile.trials(short=0, long=2)
    if not n_trials:
        pytest.skip("importing what a training needs takes too long: in the long profile only")
    alone = filled.train(tmp_path / "alone", "--format", "f16")
    assert alone.wait() == 0, alone.text
    for trial in range(n_trials):
        run, shared = tmp_path / f"{trial}", copy_of(filled, place(filled.slides))
        both = [shared.train(run, "--format", "f16"), shared.train(run, "--format", "f16")]
        embed = shared.embed("--format", "i6")
        ended = sorted(command.wait() for command in both)
        refused = [command.text for command in both if command.wait()]
        why = "" if ended == [0, 75] and "Another process is training in" in refused[0] else "".join(refused)
        if not why and (run / "best.pt").read_bytes() != (tmp_path / "alone" / "best.pt").read_bytes():
            why = "the weights are not those of a training that was alone"
        record(ledger, "two trainings into one folder", why)
        record(ledger, "train beside embed", why or (embed.text if embed.wait() else ""))
