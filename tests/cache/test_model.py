"""Any sequence of operations leaves a store that says the same as a plain dictionary."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

from nucseg_cache import Key, Store

ROWS = st.data()


class StoreModel(RuleBasedStateMachine):
    """A store beside lists and dictionaries that are told the same."""

    make: Any = None
    """The factories of conftest.py: sample, embedding, store."""
    each_way: Any = None
    """Both ways of reading, as in conftest.py."""

    @initialize(name=st.sampled_from(["f16", "i8", "i6"]))
    def create(self, name: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "drawn.zarr"
        self.key = Key({"format": name})
        self.store = self.make[2](self.path, 2)
        self.rows: list[dict[str, Any]] = [{"id": n, "image": 0, "mask": 0, "present": True} for n in range(2)]
        self.embedded: dict[int, tuple[int, int]] = {}  # row -> version of the image, which embedding

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(n=st.integers(1, 3))
    def append(self, n: int) -> None:
        ids = range(len(self.rows), len(self.rows) + n)
        self.store.append([self.make[0](one) for one in ids])
        self.rows += [{"id": one, "image": 0, "mask": 0, "present": True} for one in ids]

    @rule(data=ROWS, image=st.integers(0, 2), mask=st.integers(0, 2))
    def replace(self, data: st.DataObject, image: int, mask: int) -> None:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        self.store.replace(row, self.make[0](row, image_version=image, mask_version=mask))
        self.rows[row] = {"id": row, "image": image, "mask": mask, "present": True}

    @rule(data=ROWS, present=st.booleans())
    def mark(self, data: st.DataObject, present: bool) -> None:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        self.store.mark(row, present=present)
        self.rows[row]["present"] = present

    @rule(data=ROWS, which=st.integers(0, 200))
    def write(self, data: st.DataObject, which: int) -> None:
        rows = data.draw(st.lists(st.integers(0, len(self.rows) - 1), min_size=1, max_size=3, unique=True))
        self.store.embeddings(self.key).write(rows, np.stack([self.make[1](which + row) for row in rows]))
        self.embedded |= {row: (self.rows[row]["image"], which + row) for row in rows}

    @precondition(lambda self: self.embedded)
    @rule(data=ROWS)
    def clear(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.embedded)))
        self.store.embeddings(self.key).clear([row])
        del self.embedded[row]

    @rule(mode=st.sampled_from(["r+", "exclusive"]))
    def reopen(self, mode: str) -> None:
        if mode == "r+":
            self.store = Store.open(self.path, mode="r+")
        else:
            with self.store.exclusive():
                pass

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        for _ in self.each_way():
            self.says_what_the_model_says(Store.open(self.path))
        self.says_what_the_model_says(self.store)

    def says_what_the_model_says(self, store: Store) -> None:
        expected = [self.make[0](r["id"], image_version=r["image"], mask_version=r["mask"]) for r in self.rows]
        assert store.table == tuple(
            sample.info(row, present=self.rows[row]["present"]) for row, sample in enumerate(expected)
        )
        row = len(self.rows) // 2
        np.testing.assert_array_equal(store.read_samples([row])[0].instances, expected[row].instances)
        embeddings = store.embeddings(self.key)
        valid = {row for row, (image, _) in self.embedded.items() if image == self.rows[row]["image"]}
        assert embeddings.missing(sizes=True) == [
            row for row, r in enumerate(self.rows) if r["present"] and row not in valid
        ]
        for row in sorted(valid)[-1:]:
            np.testing.assert_array_equal(embeddings.read([row])[0], self.make[1](self.embedded[row][1]))


def test_any_sequence_of_operations_agrees_with_a_dictionary(
    sample: Any, embedding: Any, new_store: Any, each_way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoreModel, "make", (sample, embedding, new_store))
    monkeypatch.setattr(StoreModel, "each_way", staticmethod(each_way))

    run_state_machine_as_test(
        StoreModel,
        settings=settings(
            max_examples=6, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
