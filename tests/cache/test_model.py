"""After any sequence of operations a store agrees with a model of plain dictionaries."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nucseg_cache import Key, Store, prune, verify
from tests.cache.drawn_store import make_embedding, make_sample, make_store

ROWS = st.data()
GROUPS = st.sampled_from(["key", "view", "other"])
"""Embeddings of one key, a view of the same key, and embeddings of another key."""


class StoreModel(RuleBasedStateMachine):
    """A store and a model of lists and dictionaries, to which the same operations are applied."""

    each_way: Any = None
    """Both ways of reading, as in conftest.py."""
    strike: Any = None
    """Runs an operation with a fault at one of its writes, as in conftest.py."""

    @initialize(name=st.sampled_from(["f16", "i8", "i6"]))
    def create(self, name: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "drawn.zarr"
        key, other = Key({"format": name}), Key({"format": name, "layer": "12"})
        self.groups = {"key": (key, "identity"), "view": (key, "d4-1"), "other": (other, "identity")}
        self.store = make_store(self.path, 2)
        self.rows: list[dict[str, Any]] = [{"id": n, "image": 0, "mask": 0, "present": True} for n in range(2)]
        # row -> version of the image, which embedding
        self.embedded: dict[str, dict[int, tuple[int, int]]] = {group: {} for group in self.groups}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(n=st.integers(1, 3))
    def append(self, n: int) -> None:
        ids = range(len(self.rows), len(self.rows) + n)
        self.store.append([make_sample(number) for number in ids])
        self.rows += [{"id": number, "image": 0, "mask": 0, "present": True} for number in ids]

    @rule(data=ROWS, image=st.integers(0, 2), mask=st.integers(0, 2))
    def replace(self, data: st.DataObject, image: int, mask: int) -> None:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        self.store.replace(row, make_sample(row, image_version=image, mask_version=mask))
        self.rows[row] = {"id": row, "image": image, "mask": mask, "present": True}

    @rule(data=ROWS, present=st.booleans())
    def set_present(self, data: st.DataObject, present: bool) -> None:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        self.store.set_present(row, present=present)
        self.rows[row]["present"] = present

    @rule(data=ROWS, which=st.integers(0, 200), group=GROUPS)
    def write(self, data: st.DataObject, which: int, group: str) -> None:
        rows = self.some_rows(data)
        self.embeddings(group).write(rows, np.stack([make_embedding(which + row) for row in rows]))
        self.embedded[group] |= {row: (self.rows[row]["image"], which + row) for row in rows}

    @rule(data=ROWS, which=st.integers(0, 200), group=GROUPS, at=st.integers(1, 40))
    def write_and_be_killed(self, data: st.DataObject, which: int, group: str, at: int) -> None:
        rows = self.some_rows(data)
        values = np.stack([make_embedding(which + row) for row in rows])
        self.strike(at, "killed", lambda: self.embeddings(group).write(rows, values))

        self.store = Store.open(self.path, mode="r+")
        embedded = {info.row for info in self.embeddings(group).embedded_rows()}
        for row in rows:  # the old value, the new one, or missing
            before = self.embedded[group].pop(row, None)
            if row in embedded:
                found = self.embeddings(group).read([row])[0]
                after = (self.rows[row]["image"], which + row)
                is_after = np.array_equal(found, make_embedding(which + row))
                assert is_after or (before and np.array_equal(found, make_embedding(before[1])))
                self.embedded[group][row] = after if is_after or before is None else before

    @precondition(lambda self: any(self.embedded.values()))
    @rule(data=ROWS)
    def clear(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(sorted(group for group, rows in self.embedded.items() if rows)))
        row = data.draw(st.sampled_from(sorted(self.embedded[group])))
        self.embeddings(group).clear([row])
        del self.embedded[group][row]

    @precondition(lambda self: any(self.valid(group) for group in self.groups))
    @rule(data=ROWS, bit=st.integers(0, 10**9))
    def flip_a_bit_and_verify(self, data: st.DataObject, bit: int) -> None:
        group = data.draw(st.sampled_from(sorted(group for group in self.groups if self.valid(group))))
        row = data.draw(st.sampled_from(sorted(self.valid(group))))
        key, view = self.groups[group]
        file = self.path / f"embeddings/{key.hash}/{view}/values/c/{row}/0/0/0"
        content = bytearray(file.read_bytes())
        content[bit // 8 % len(content)] ^= 1 << bit % 8
        file.write_bytes(content)

        found = verify(self.path)

        assert [(finding.what, finding.bad.row) for finding in found.findings] == [(f"{key.hash}/{view}", row)]
        del self.embedded[group][row]

    @rule()
    def verify_undamaged(self) -> None:
        assert verify(self.path).findings == ()

    @precondition(lambda self: any(self.embedded.values()))
    @rule(data=ROWS)
    def prune(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(sorted(group for group, rows in self.embedded.items() if rows)))
        key, view = self.groups[group]
        whole = data.draw(st.booleans())
        prune(self.path, keys=[key.hash if whole else f"{key.hash}/{view}"])
        for other, (its_key, its_view) in self.groups.items():
            if its_key == key and (whole or its_view == view):
                self.embedded[other] = {}

    def embeddings(self, group: str, store: Store | None = None) -> Any:
        key, view = self.groups[group]
        return (store or self.store).embeddings(key, view)

    def some_rows(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.integers(0, len(self.rows) - 1), min_size=1, max_size=3, unique=True))

    def valid(self, group: str) -> set[int]:
        """The rows whose embedding in a group is of their current image."""
        return {row for row, (image, _) in self.embedded[group].items() if image == self.rows[row]["image"]}

    @rule(mode=st.sampled_from(["r+", "exclusive"]))
    def reopen(self, mode: str) -> None:
        if mode == "r+":
            self.store = Store.open(self.path, mode="r+")
        else:
            with self.store.exclusive():
                pass

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for _ in self.each_way():
            self.assert_agrees(Store.open(self.path))
        self.assert_agrees(self.store)

    def assert_agrees(self, store: Store) -> None:
        expected = [make_sample(r["id"], image_version=r["image"], mask_version=r["mask"]) for r in self.rows]
        assert store.table == tuple(
            sample.info(row, present=self.rows[row]["present"]) for row, sample in enumerate(expected)
        )
        row = len(self.rows) // 2
        np.testing.assert_array_equal(store.read_samples([row])[0].instances, expected[row].instances)
        for group in self.groups:
            embeddings, valid = self.embeddings(group, store), self.valid(group)
            assert embeddings.missing(sizes=True) == [
                row for row, r in enumerate(self.rows) if r["present"] and row not in valid
            ]
            for row in sorted(valid)[-1:]:
                np.testing.assert_array_equal(embeddings.read([row])[0], make_embedding(self.embedded[group][row][1]))


def test_any_sequence_of_operations_agrees_with_the_model(each_way, strike, monkeypatch) -> None:
    monkeypatch.setattr(StoreModel, "each_way", staticmethod(each_way))
    monkeypatch.setattr(StoreModel, "strike", staticmethod(strike))

    run_state_machine_as_test(
        StoreModel,
        settings=settings(
            max_examples=8, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
