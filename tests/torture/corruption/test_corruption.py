"""Whatever happens to the files of a store: a read is right or an error that says so, and what the error says mends it.

Each trial damages a copy of a store, reads all that is in it in every way there is, does what the messages say, and
reads it again.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from nucseg.errors import NucsegError
from nucseg_cache import BLOCK_ROWS, CacheError, prune, verify
from nucseg_cache.layout import Layout

Random = np.random.Generator
Fault = Callable[[Any, Path, Random], list[str]]
"""Damages the store of a shelf that lies at a path; returns the names, within it, of what was touched."""

PIXELS = ("image", "instances", "ignore")
ONE_ROW_A_FILE = (*PIXELS, "values")
SHELVES = ("f16 and a view", "i8 and f32")
MOST_ROUNDS = 5
"""Messages that a user may have to follow one after the other, at most."""


# ---- what there is to be damaged


def names(path: Path, pattern: str = "*") -> list[str]:
    """Files of a store, in order; links are not followed."""
    return sorted(str(file.relative_to(path)) for file in path.rglob(pattern) if file.is_file() or file.is_symlink())


def chunks(path: Path) -> list[str]:
    return [name for name in names(path) if "/c/" in name]


def a_file(path: Path, random: Random) -> str:
    """Any file, of what is rare as often as of what there is much."""
    kinds = [
        [name for name in names(path) if name.endswith("zarr.json")],
        [name for name in chunks(path) if name.startswith("samples/") and name.split("/")[1] in PIXELS],
        [name for name in chunks(path) if name.startswith("samples/") and name.split("/")[1] not in PIXELS],
        [name for name in chunks(path) if name.startswith("embeddings/") and name.split("/")[3] in ONE_ROW_A_FILE],
        [name for name in chunks(path) if name.startswith("embeddings/") and name.split("/")[3] not in ONE_ROW_A_FILE],
    ]
    return one_of(one_of([kind for kind in kinds if kind], random), random)


def one_of(things: Sequence[Any], random: Random) -> Any:
    return things[int(random.integers(len(things)))]


def arrays(path: Path) -> list[str]:
    return sorted(name.rpartition("/")[0] for name in names(path, "zarr.json") if is_array(path / name))


def groups(path: Path) -> list[str]:
    return sorted(name.rpartition("/")[0] for name in names(path, "zarr.json") if not is_array(path / name))


def is_array(document: Path) -> bool:
    return json.loads(document.read_bytes())["node_type"] == "array"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


# ---- faults: bytes


def changed(change: Callable[[bytes, Random], bytes]) -> Fault:
    def fault(shelf: Any, path: Path, random: Random) -> list[str]:
        name = a_file(path, random)
        content = (path / name).read_bytes()
        (path / name).write_bytes(change(content, random))
        return [name]

    return fault


def flip(content: bytes, random: Random) -> bytes:
    flipped = bytearray(content)
    for bit in random.integers(0, 8 * max(len(content), 1), int(random.integers(1, 9))):
        if content:
            flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def overwrite(content: bytes, random: Random) -> bytes:
    first, n_bytes = int(random.integers(len(content) or 1)), int(random.integers(1, 600))
    written = random.bytes(n_bytes) if random.random() < 0.7 else bytes(n_bytes)
    return (content[:first] + written + content[first + n_bytes :])[: len(content)]


def cut(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(1, max(len(content), 2)))]


def grow(content: bytes, random: Random) -> bytes:
    more = random.bytes(int(random.integers(1, 600)))
    return content + (more if random.random() < 0.5 else bytes(len(more)))


def delete(shelf: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    (path / name).unlink()
    return [name]


# ---- faults: files and folders in another one's place


def swap(path: Path, one: str, other: str) -> list[str]:
    (path / one).rename(path / "swapped")
    (path / other).rename(path / one)
    (path / "swapped").rename(path / other)
    return [one, other]


def swap_rows(shelf: Any, path: Path, random: Random) -> list[str]:
    array = one_of([a for a in arrays(path) if len(list((path / a / "c").iterdir())) > 1], random)
    one, other = random.permutation([name for name in chunks(path) if name.startswith(f"{array}/")])[:2]
    return swap(path, str(one), str(other))


def take_another_array(shelf: Any, path: Path, random: Random) -> list[str]:
    target, source = random.permutation(chunks(path))[:2]
    copy(path / source, path / target)
    return [str(target)]


def take_another_group(shelf: Any, path: Path, random: Random) -> list[str]:
    """A file of the same row and array of another view or key."""
    found = [name for name in chunks(path) if name.startswith("embeddings/")]
    target = one_of(found, random)
    alike = [name for name in found if name != target and name.split("/")[3:] == target.split("/")[3:]]
    if not alike:
        return []
    copy(path / one_of(alike, random), path / target)
    return [target]


def take_from(other: str) -> Fault:
    """A file of a store at another moment, or of another store.

    But for the root's own document: a store whose number of rows is set back is one whose last append was killed.
    Nothing tells these two from one another, and the next `embed` adds the rows again (see the format's README).
    """

    def fault(shelf: Any, path: Path, random: Random) -> list[str]:
        source = getattr(shelf, other)
        differing = [name for name in names(source) if name != "zarr.json" and differs(source / name, path / name)]
        name = one_of(differing, random)
        copy(source / name, path / name)
        return [name]

    return fault


def differs(one: Path, other: Path) -> bool:
    return not other.exists() or one.read_bytes() != other.read_bytes()


def delete_folder(shelf: Any, path: Path, random: Random) -> list[str]:
    folder = one_of([*arrays(path), *groups(path)[1:]], random)
    remove(path / folder)
    return [folder]


def swap_folders(shelf: Any, path: Path, random: Random) -> list[str]:
    folders = arrays(path) if random.random() < 0.6 else [g for g in groups(path) if g.startswith("embeddings/")]
    one = one_of(folders, random)
    others = [f for f in folders if f != one and f.rpartition("/")[0] == one.rpartition("/")[0]]
    return swap(path, one, one_of(others, random)) if others else []


def folder_of(other: str) -> Fault:
    def fault(shelf: Any, path: Path, random: Random) -> list[str]:
        source = getattr(shelf, other)
        folder = one_of([*arrays(source), *groups(source)[1:]], random)
        copy(source / folder, path / folder)
        return [folder]

    return fault


# ---- faults: metadata


def edit(path: Path, name: str, change: Callable[[Any], object]) -> list[str]:
    document = json.loads((path / name).read_bytes())
    change(document)
    (path / name).write_text(json.dumps(document, indent=2))
    return [name]


VALUES: tuple[Any, ...] = (None, True, -1, 0, 1, 2, 3.5, 1 << 70, "", "x", "uint8", [], [1], {}, {"name": "x"}, 64, 7)


def edit_randomly(value: Any, random: Random) -> None:
    """Go down somewhere in a JSON value; there take something out, put something in, or set it to something else."""
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not places or random.random() < 0.1:
            more = one_of(VALUES, random)
            value.update(more=more) if isinstance(value, dict) else value.append(more)
            return
        place = one_of(places, random)
        inside = value[place]
        if isinstance(inside, dict | list) and random.random() < 0.75:
            value = inside
            continue
        if random.random() < 0.3:
            del value[place]
        else:
            others = [other for other in VALUES if json.dumps(other) != json.dumps(inside)]
            value[place] = one_of(others, random)
        return


def edit_attributes(shelf: Any, path: Path, random: Random) -> list[str]:
    sealed = [group for group in groups(path) if group not in ("samples", "embeddings")]
    name = f"{one_of(sealed, random)}/zarr.json".removeprefix("/")
    return edit(path, name, lambda document: edit_randomly(document["attributes"], random))


def edit_array(shelf: Any, path: Path, random: Random) -> list[str]:
    return edit(path, f"{one_of(arrays(path), random)}/zarr.json", lambda document: edit_randomly(document, random))


def edit_n_rows(shelf: Any, path: Path, random: Random) -> list[str]:
    name = f"{one_of(arrays(path), random)}/zarr.json"
    n_rows = one_of((*VALUES, 5, 6, 1000, 1 << 40), random)
    return edit(path, name, lambda document: document["shape"].__setitem__(0, n_rows))


def edit_group(shelf: Any, path: Path, random: Random) -> list[str]:
    name = f"{one_of(groups(path), random)}/zarr.json".removeprefix("/")
    return edit(path, name, lambda document: edit_randomly(document, random))


def not_the_same_json(shelf: Any, path: Path, random: Random) -> list[str]:
    name = one_of(names(path, "zarr.json"), random)
    texts = ("", "[]", "null", "3", '"x"', '{"a": NaN}', "[" * 5000, '{"zarr_format": 3', "\ufeff{}", "{}")
    (path / name).write_text(one_of(texts, random))
    return [name]


def consolidate(shelf: Any, path: Path, random: Random) -> list[str]:
    group = one_of(["", *(g for g in groups(path) if g.startswith("embeddings/"))], random)
    with pytest.warns(Warning, match="[Cc]onsolidated"):
        zarr.consolidate_metadata(path / group)
    return [f"{group}/zarr.json".removeprefix("/")]


def another_format(shelf: Any, path: Path, random: Random) -> list[str]:
    number = one_of((0, 2, 99, "1", None), random)
    if random.random() < 0.5:
        return edit(path, "zarr.json", lambda document: document["attributes"].update(format=number))
    Layout.open(path, "r+").with_attributes(format=number)  # as another version would have written it
    return ["zarr.json"]


# ---- faults: the file system


def file_becomes_folder(shelf: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    (path / name).unlink()
    (path / name).mkdir()
    if random.random() < 0.5:
        (path / name / "0").write_bytes(b"x")
    return [name]


def folder_becomes_file(shelf: Any, path: Path, random: Random) -> list[str]:
    folders = sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_dir())
    name = one_of(folders, random)
    remove(path / name)
    (path / name).write_bytes(b"x" * int(random.integers(0, 3)))
    return [name]


def cannot_be_read(shelf: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    if os.geteuid() and random.random() < 0.5:
        (path / name).chmod(0)
    else:
        (path / name).unlink()
        (path / name).symlink_to(path / name)  # a link to itself cannot be opened, not even by root
    return [name.partition("/c/")[0]]  # it is no damage, and stops every read that comes by


def becomes_link(shelf: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    target = one_of(["elsewhere", "nowhere", one_of(chunks(path), random)], random)
    if target == "elsewhere":
        copy(path / name, path.parent / "elsewhere")
    (path / name).unlink()
    (path / name).symlink_to(path.parent / target if target in ("elsewhere", "nowhere") else path / target)
    return [name]


FAULTS: dict[str, Fault] = {
    "bits flipped in a file of a store": changed(flip),
    "bytes of a file of a store overwritten": changed(overwrite),
    "a file of a store cut short": changed(cut),
    "a file of a store grown": changed(grow),
    "a file of a store emptied": changed(lambda content, random: b""),
    "a file of a store deleted": delete,
    "files of two rows swapped": swap_rows,
    "a file replaced by one of another array": take_another_array,
    "a file replaced by that of another view or key": take_another_group,
    "a file as it was before an image changed": take_from("earlier"),
    "a file replaced by that of another store": take_from("stranger"),
    "a folder of a store deleted": delete_folder,
    "two folders of a store swapped": swap_folders,
    "a folder as it was before an image changed": folder_of("earlier"),
    "a folder replaced by that of another store": folder_of("stranger"),
    "an attribute edited": edit_attributes,
    "an array's metadata edited": edit_array,
    "an array's number of rows edited": edit_n_rows,
    "a group's metadata edited": edit_group,
    "metadata that is other JSON or none": not_the_same_json,
    "metadata consolidated by another program": consolidate,
    "a store of another format number": another_format,
    "a file of a store is a folder": file_becomes_folder,
    "a folder of a store is a file": folder_becomes_file,
    "a file of a store cannot be read": cannot_be_read,
    "a file of a store is a link": becomes_link,
}
SEVERAL = "several of these at once"


# ---- how far it may reach


class Reach:
    """The rows that may be lost to what was touched: no others may be."""

    def __init__(self, touched: Sequence[str], n_rows: int) -> None:
        self._rows: dict[str, set[int]] = {}
        for name in touched:
            for where in _reached(name):
                self._rows.setdefault(where, set()).update(_rows(name, n_rows))

    def samples(self) -> set[int]:
        return self._rows.get("samples", set())

    def embeddings(self, key: str, view: str) -> set[int]:
        places = ("samples", "embeddings", f"embeddings/{key}", f"embeddings/{key}/{view}")
        return set().union(*(self._rows.get(place, set()) for place in places))


def _reached(name: str) -> list[str]:
    parts = name.split("/")
    if parts[0] != "embeddings":
        return ["samples"]
    depth = 3 if len(parts) > 3 or (len(parts) == 3 and parts[2] != "zarr.json") else 2
    is_above = parts[1:2] in ([], ["zarr.json"])
    return ["samples" if is_above else "/".join(parts[:depth])]


def _rows(name: str, n_rows: int) -> set[int]:
    array, _, place = name.partition("/c/")
    if not place:
        return set(range(n_rows))
    number = int(place.split("/")[0])
    if array.rpartition("/")[2] in ONE_ROW_A_FILE:
        return {number}
    return set(range(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, n_rows)))


# ---- doing what the messages say


def follow(message: str, shelf: Any, path: Path) -> None:
    """What a user does who is told this, but for running `embed`."""
    pruned = re.search(r"`nucseg cache prune (\S+) --key (\S+)`", message)
    deleted = re.search(rf"[Dd]elete ({re.escape(str(path))}(?:/[^\s,;]*[^\s,;.])?)", message)
    if pruned:
        prune(pruned[1], keys=[pruned[2]])
    elif deleted:
        remove(Path(deleted[1]))
        if "Then run `nucseg cache verify`" in message:
            verify(path)
    elif f"`nucseg cache verify {path}`" in message:
        verify(path)
    elif "Use the nucseg that wrote it, or choose another --cache" in message:
        remove(path.parent / "set aside")
        path.rename(path.parent / "set aside")
    elif "`nucseg embed`" not in message:
        raise AssertionError(f"it does not say what to do: {message}")


def mend(shelf: Any, path: Path, complaints: Sequence[Exception]) -> None:
    """Follow the messages of reading, then those of `embed`, until it is content."""
    told = list(dict.fromkeys(str(error) for error in complaints))
    for _ in range(MOST_ROUNDS):
        try:
            for message in told[:1] if any("elete" in one for one in told) else told:
                follow(message, shelf, path)
            shelf.embed(path)
            if verify(path).findings:  # and has cleared them: what was noted of an image that is gone, for example
                shelf.embed(path)
        except (CacheError, NucsegError) as error:
            told = [str(error)]
        else:
            return
    raise AssertionError(f"after {MOST_ROUNDS} messages the last is: {told[0]}")


# ---- trials


def harm(fault: str, shelf: Any, path: Path, random: Random) -> list[str]:
    """Apply a fault, or several, to a copy of a store; returns the names of what was touched."""
    shutil.copytree(shelf.now, path)
    if fault != SEVERAL:
        return FAULTS[fault](shelf, path, random)
    touched: list[str] = []
    # a later one may find nothing to harm in what the first have left
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, CacheError):
        for _ in range(int(random.integers(2, 5))):
            touched += FAULTS[one_of(list(FAULTS), random)](shelf, path, random)
    return touched


def outcome(shelf: Any, path: Path, touched: Sequence[str], reading: Any, through_zarr: Any, number: int) -> str:
    """Read what was damaged, do what the messages say, read it again; what became of the fault."""
    truth = shelf.truth
    if any(is_of_another_moment(name) for name in touched):
        truth = truth + shelf.truth_earlier + shelf.truth_stranger
    n_rows = len(shelf.truth.rows)
    read = reading(path, truth, n_rows).all()
    if number % 2 == 0:
        with through_zarr():
            again = reading(path, truth, n_rows).all(verified=False)
        assert (again.bad_samples, again.bad_embeddings) == (read.bad_samples, read.bad_embeddings), "zarr reads others"
    reach = Reach(touched, n_rows)
    assert read.bad_samples <= reach.samples(), f"samples {read.bad_samples} are lost to it"
    for group, bad in read.bad_embeddings.items():
        assert bad <= reach.embeddings(*group), f"embeddings {bad} of {group} are lost to it"
    mend(shelf, path, read.complaints)
    shelf.refuse_difference(path)
    return "detected" if read.complaints else "survived"


def is_of_another_moment(name: str) -> bool:
    """Whether samples that are whole in themselves may stand there: nothing in a store tells when it was so."""
    return name == "zarr.json" or (name.startswith("samples") and "/c/" not in name)


@pytest.mark.parametrize("fault", [*FAULTS, SEVERAL])
def test_a_damaged_store_is_never_read_wrong_and_is_mended_by_what_the_messages_say(
    fault: str, profile: Any, ledger: Any, shelves: Any, reading: Any, through_zarr: Any, tmp_path: Path
) -> None:
    order = [*FAULTS, SEVERAL].index(fault)
    for number in range(profile.trials(short=1, long=40)):
        shelf = shelves("two blocks" if number % 20 == 19 else SHELVES[(number + order) % 2])
        path = tmp_path / str(number) / "mine.zarr"
        touched = harm(fault, shelf, path, profile.random(7, order, number))
        try:
            found = outcome(shelf, path, touched, reading, through_zarr, number + order)
        except Exception as error:
            ledger.lost(fault, f"trial {number} on {shelf.name}, touched {touched}: {type(error).__name__}: {error}")
        else:
            getattr(ledger, found)(fault)
        shutil.rmtree(path.parent)
