"""Damaged stores: a read is correct or fails with an error, and following the error message repairs the store.

Each trial damages a copy of a store, reads all of it in every way, does what the messages say, and reads it again.
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
"""Damages a copy of `Stores.current` at a path; returns the relative paths of what was changed."""

PIXELS = ("image", "instances", "ignore")
ONE_ROW_A_FILE = (*PIXELS, "values")
NAMES = ("f16 and a view", "i8 and f32")
MAX_ROUNDS = 5
"""The most messages that a user has to follow, one after the other."""


# ---- what can be damaged


def names(path: Path, pattern: str = "*") -> list[str]:
    """The sorted files of a store; links are not followed."""
    return sorted(str(file.relative_to(path)) for file in path.rglob(pattern) if file.is_file() or file.is_symlink())


def chunks(path: Path) -> list[str]:
    return [name for name in names(path) if "/c/" in name]


def a_file(path: Path, random: Random) -> str:
    """A random file; each kind of file is equally likely."""
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


def content_changed(change: Callable[[bytes, Random], bytes]) -> Fault:
    def fault(stores: Any, path: Path, random: Random) -> list[str]:
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


def truncate(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(1, max(len(content), 2)))]


def extend(content: bytes, random: Random) -> bytes:
    more = random.bytes(int(random.integers(1, 600)))
    return content + (more if random.random() < 0.5 else bytes(len(more)))


def delete(stores: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    (path / name).unlink()
    return [name]


# ---- faults: files and folders in the wrong place


def swap(path: Path, first: str, second: str) -> list[str]:
    (path / first).rename(path / "swapped")
    (path / second).rename(path / first)
    (path / "swapped").rename(path / second)
    return [first, second]


def swap_rows(stores: Any, path: Path, random: Random) -> list[str]:
    array = one_of([a for a in arrays(path) if len(list((path / a / "c").iterdir())) > 1], random)
    pair = random.permutation([name for name in chunks(path) if name.startswith(f"{array}/")])[:2]
    return swap(path, *map(str, pair))


def take_another_array(stores: Any, path: Path, random: Random) -> list[str]:
    target, source = random.permutation(chunks(path))[:2]
    copy(path / source, path / target)
    return [str(target)]


def take_another_group(stores: Any, path: Path, random: Random) -> list[str]:
    """Replace a file by that of the same row and array in another view or key."""
    found = [name for name in chunks(path) if name.startswith("embeddings/")]
    target = one_of(found, random)
    alike = [name for name in found if name != target and name.split("/")[3:] == target.split("/")[3:]]
    if not alike:
        return []
    copy(path / one_of(alike, random), path / target)
    return [target]


def take_from(name_of_store: str) -> Fault:
    """Replace a file by that of another version of the store, or of another store.

    Not the root's document: a store with fewer rows looks like one whose last append was killed, and the next `embed`
    adds the rows again (see the format's README).
    """

    def fault(stores: Any, path: Path, random: Random) -> list[str]:
        source = getattr(stores, name_of_store)
        differing = [name for name in names(source) if name != "zarr.json" and differs(source / name, path / name)]
        name = one_of(differing, random)
        copy(source / name, path / name)
        return [name]

    return fault


def differs(source: Path, target: Path) -> bool:
    return not target.exists() or source.read_bytes() != target.read_bytes()


def delete_folder(stores: Any, path: Path, random: Random) -> list[str]:
    folder = one_of([*arrays(path), *groups(path)[1:]], random)
    remove(path / folder)
    return [folder]


def swap_folders(stores: Any, path: Path, random: Random) -> list[str]:
    folders = arrays(path) if random.random() < 0.6 else [g for g in groups(path) if g.startswith("embeddings/")]
    folder = one_of(folders, random)
    siblings = [f for f in folders if f != folder and f.rpartition("/")[0] == folder.rpartition("/")[0]]
    return swap(path, folder, one_of(siblings, random)) if siblings else []


def folder_of(name_of_store: str) -> Fault:
    def fault(stores: Any, path: Path, random: Random) -> list[str]:
        source = getattr(stores, name_of_store)
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
    """Delete, add or replace a value at a random depth of a JSON value."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys or random.random() < 0.1:
            more = one_of(VALUES, random)
            value.update(more=more) if isinstance(value, dict) else value.append(more)
            return
        key = one_of(keys, random)
        inside = value[key]
        if isinstance(inside, dict | list) and random.random() < 0.75:
            value = inside
            continue
        if random.random() < 0.3:
            del value[key]
        else:
            others = [other for other in VALUES if json.dumps(other) != json.dumps(inside)]
            value[key] = one_of(others, random)
        return


def edit_attributes(stores: Any, path: Path, random: Random) -> list[str]:
    sealed = [group for group in groups(path) if group not in ("samples", "embeddings")]
    name = f"{one_of(sealed, random)}/zarr.json".removeprefix("/")
    return edit(path, name, lambda document: edit_randomly(document["attributes"], random))


def edit_array(stores: Any, path: Path, random: Random) -> list[str]:
    return edit(path, f"{one_of(arrays(path), random)}/zarr.json", lambda document: edit_randomly(document, random))


def edit_n_rows(stores: Any, path: Path, random: Random) -> list[str]:
    name = f"{one_of(arrays(path), random)}/zarr.json"
    n_rows = one_of((*VALUES, 5, 6, 1000, 1 << 40), random)
    return edit(path, name, lambda document: document["shape"].__setitem__(0, n_rows))


def edit_group(stores: Any, path: Path, random: Random) -> list[str]:
    name = f"{one_of(groups(path), random)}/zarr.json".removeprefix("/")
    return edit(path, name, lambda document: edit_randomly(document, random))


def replace_metadata(stores: Any, path: Path, random: Random) -> list[str]:
    name = one_of(names(path, "zarr.json"), random)
    texts = ("", "[]", "null", "3", '"x"', '{"a": NaN}', "[" * 5000, '{"zarr_format": 3', "\ufeff{}", "{}")
    (path / name).write_text(one_of(texts, random))
    return [name]


def consolidate(stores: Any, path: Path, random: Random) -> list[str]:
    group = one_of(["", *(g for g in groups(path) if g.startswith("embeddings/"))], random)
    with pytest.warns(Warning, match="[Cc]onsolidated"):
        zarr.consolidate_metadata(path / group)
    return [f"{group}/zarr.json".removeprefix("/")]


def another_format(stores: Any, path: Path, random: Random) -> list[str]:
    number = one_of((0, 2, 99, "1", None), random)
    if random.random() < 0.5:
        return edit(path, "zarr.json", lambda document: document["attributes"].update(format=number))
    Layout.open(path, "r+").with_attributes(format=number)  # with a valid seal, as another version would write it
    return ["zarr.json"]


# ---- faults: the file system


def file_becomes_folder(stores: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    (path / name).unlink()
    (path / name).mkdir()
    if random.random() < 0.5:
        (path / name / "0").write_bytes(b"x")
    return [name]


def folder_becomes_file(stores: Any, path: Path, random: Random) -> list[str]:
    folders = sorted(str(folder.relative_to(path)) for folder in path.rglob("*") if folder.is_dir())
    name = one_of(folders, random)
    remove(path / name)
    (path / name).write_bytes(b"x" * int(random.integers(0, 3)))
    return [name]


def make_unreadable(stores: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    if os.geteuid() and random.random() < 0.5:
        (path / name).chmod(0)
    else:
        (path / name).unlink()
        (path / name).symlink_to(path / name)  # not even root can open a link to itself
    return [name.partition("/c/")[0]]  # not damage of one row: every read of the array fails


def becomes_link(stores: Any, path: Path, random: Random) -> list[str]:
    name = a_file(path, random)
    target = one_of(["elsewhere", "nowhere", one_of(chunks(path), random)], random)
    if target == "elsewhere":
        copy(path / name, path.parent / "elsewhere")
    (path / name).unlink()
    (path / name).symlink_to(path.parent / target if target in ("elsewhere", "nowhere") else path / target)
    return [name]


FAULTS: dict[str, Fault] = {
    "store: bits flipped in a file": content_changed(flip),
    "store: bytes of a file overwritten": content_changed(overwrite),
    "store: file truncated": content_changed(truncate),
    "store: file extended": content_changed(extend),
    "store: file emptied": content_changed(lambda content, random: b""),
    "store: file deleted": delete,
    "store: files of two rows swapped": swap_rows,
    "store: file replaced by one of another array": take_another_array,
    "store: file replaced by that of another view or key": take_another_group,
    "store: file from before an image changed": take_from("earlier"),
    "store: file replaced by that of another store": take_from("other"),
    "store: folder deleted": delete_folder,
    "store: two folders swapped": swap_folders,
    "store: folder from before an image changed": folder_of("earlier"),
    "store: folder replaced by that of another store": folder_of("other"),
    "store: attribute edited": edit_attributes,
    "store: metadata of an array edited": edit_array,
    "store: number of rows of an array edited": edit_n_rows,
    "store: metadata of a group edited": edit_group,
    "store: metadata replaced by other JSON or text": replace_metadata,
    "store: metadata consolidated by another program": consolidate,
    "store: other format number": another_format,
    "store: file replaced by a folder": file_becomes_folder,
    "store: folder replaced by a file": folder_becomes_file,
    "store: file unreadable": make_unreadable,
    "store: file replaced by a link": becomes_link,
}
SEVERAL = "store: several of these at once"


# ---- the rows that a fault may affect


class Affected:
    """The rows that may be lost after some files were changed; no others may be."""

    def __init__(self, touched: Sequence[str], n_rows: int) -> None:
        self._rows: dict[str, set[int]] = {}
        for name in touched:
            for node in _nodes(name):
                self._rows.setdefault(node, set()).update(_rows(name, n_rows))

    def samples(self) -> set[int]:
        return self._rows.get("samples", set())

    def embeddings(self, key: str, view: str) -> set[int]:
        nodes = ("samples", "embeddings", f"embeddings/{key}", f"embeddings/{key}/{view}")
        return set().union(*(self._rows.get(node, set()) for node in nodes))


def _nodes(name: str) -> list[str]:
    parts = name.split("/")
    if parts[0] != "embeddings":
        return ["samples"]
    depth = 3 if len(parts) > 3 or (len(parts) == 3 and parts[2] != "zarr.json") else 2
    is_above = parts[1:2] in ([], ["zarr.json"])
    return ["samples" if is_above else "/".join(parts[:depth])]


def _rows(name: str, n_rows: int) -> set[int]:
    array, _, chunk = name.partition("/c/")
    if not chunk:
        return set(range(n_rows))
    number = int(chunk.split("/")[0])
    if array.rpartition("/")[2] in ONE_ROW_A_FILE:
        return {number}
    return set(range(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, n_rows)))


# ---- following the messages


def follow(message: str, stores: Any, path: Path) -> None:
    """Do what a message says, except for `embed`."""
    pruned = re.search(r"`nucseg cache prune (\S+) --key (\S+)`", message)
    deleted = re.search(rf"[Dd]elete ({re.escape(str(path))}(?:/[^\s,;]*[^\s,;.])?)", message)
    if pruned:
        prune(pruned[1], keys=[pruned[2]])
    elif deleted:
        remove(Path(deleted[1]))
        if f"Then run `nucseg cache verify {path}`" in message:
            verify(path)
    elif f"`nucseg cache verify {path}`" in message:
        verify(path)
    elif "Use the nucseg that wrote it" in message:
        remove(path.parent / "set aside")
        path.rename(path.parent / "set aside")
    elif "`nucseg embed " not in message:
        raise AssertionError(f"the message names no way out: {message}")


def repair(stores: Any, path: Path, errors: Sequence[Exception]) -> None:
    """Follow the messages of reading, then those of `embed`, until `embed` succeeds."""
    messages = list(dict.fromkeys(map(str, errors)))
    for _ in range(MAX_ROUNDS):
        try:
            for message in messages[:1] if any("elete" in text for text in messages) else messages:
                follow(message, stores, path)
            stores.embed(path)
            if verify(path).findings:  # now cleared: the record of a deleted image, for example
                stores.embed(path)
        except (CacheError, NucsegError) as error:
            messages = [str(error)]
        else:
            return
    raise AssertionError(f"after {MAX_ROUNDS} messages the last is: {messages[0]}")


# ---- trials


def damage(fault: str, stores: Any, path: Path, random: Random) -> list[str]:
    """Apply a fault, or several, to a copy of the store; returns the relative paths of what was changed."""
    shutil.copytree(stores.current, path)
    if fault != SEVERAL:
        return FAULTS[fault](stores, path, random)
    touched: list[str] = []
    # a fault may find nothing to damage in what the first ones have left
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, CacheError):
        for _ in range(int(random.integers(2, 5))):
            touched += FAULTS[one_of(list(FAULTS), random)](stores, path, random)
    return touched


def outcome(stores: Any, path: Path, touched: Sequence[str], store_reader: Any, through_zarr: Any, number: int) -> str:
    """Read a damaged store, repair it, read it again; returns the outcome."""
    contents = stores.contents
    if any(may_be_of_another_version(name) for name in touched):
        contents = contents + stores.earlier_contents + stores.other_contents
    n_rows = len(stores.contents.rows)
    read = store_reader(path, contents, n_rows).read_all()
    if number % 2 == 0:
        with through_zarr():
            again = store_reader(path, contents, n_rows).read_all(verified=False)
        assert (again.bad_samples, again.bad_embeddings) == (read.bad_samples, read.bad_embeddings), (
            "zarr reads other rows"
        )
    affected = Affected(touched, n_rows)
    assert read.bad_samples <= affected.samples(), f"samples {read.bad_samples} are lost"
    for group, bad in read.bad_embeddings.items():
        assert bad <= affected.embeddings(*group), f"embeddings {bad} of {group} are lost"
    repair(stores, path, read.errors)
    stores.check_repaired(path)
    return "detected" if read.errors else "survived"


def may_be_of_another_version(name: str) -> bool:
    """Whether intact samples of another version may be in its place, which a store cannot detect."""
    return name == "zarr.json" or (name.startswith("samples") and "/c/" not in name)


@pytest.mark.parametrize("fault", [*FAULTS, SEVERAL])
def test_a_damaged_store_is_never_misread_and_its_messages_lead_to_a_repair(
    fault: str, profile: Any, ledger: Any, stores: Any, store_reader: Any, through_zarr: Any, tmp_path: Path
) -> None:
    order = [*FAULTS, SEVERAL].index(fault)
    for number in range(profile.trials(short=1, long=40)):
        subject = stores("two blocks" if number % 20 == 19 else NAMES[(number + order) % 2])
        path = tmp_path / str(number) / "mine.zarr"
        touched = damage(fault, subject, path, profile.random(7, order, number))
        try:
            found = outcome(subject, path, touched, store_reader, through_zarr, number + order)
        except Exception as error:
            ledger.lost(fault, f"trial {number} on {subject.name}, touched {touched}: {type(error).__name__}: {error}")
        else:
            getattr(ledger, found)(fault)
        shutil.rmtree(path.parent)
