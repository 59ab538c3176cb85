"""Locks: one writer per block, one for the samples, and no other writer during pruning."""

import asyncio
import signal
import threading
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

from nucseg_cache import Key, Store, StoreAccessError
from nucseg_cache.locks import SAMPLES, StoreLocks, block_slot, shape_slot
from tests.cache.drawn_store import Files, make_embeddings, make_key, make_sample, make_store

HOLD_FIRST_BLOCK = """
    store = Store.open(sys.argv[1], mode="r+")
    embeddings = store.embeddings(make_key())
    with embeddings.claim(embeddings.blocks()[0]) as held:
        print("held" if held else "refused", flush=True)
        sys.stdin.readline()
"""


def claimed(store: Store, key: Key, block: int, view: str = "identity") -> bool:
    embeddings = store.embeddings(key, view)
    with embeddings.claim(embeddings.blocks()[block]) as held:
        return held


def test_a_block_held_by_a_process_is_refused_to_others_until_it_is_killed(two_blocks, key, process) -> None:
    holder = process(HOLD_FIRST_BLOCK, two_blocks.location)
    assert holder.stdout.readline() == "held\n"
    second = process(HOLD_FIRST_BLOCK, two_blocks.location)
    assert second.stdout.readline() == "refused\n"

    assert not claimed(two_blocks, key, 0)
    assert not claimed(two_blocks, key, 0, "flip-x")  # the views of a key share their blocks
    assert claimed(two_blocks, key, 1)
    assert claimed(two_blocks, make_key(weights="another"), 0)

    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with two_blocks.embeddings(key).claim(range(64), wait=True) as held:
        assert held


def test_a_link_to_a_store_is_the_same_store(two_blocks, key, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.zarr").symlink_to(two_blocks.location)
    linked = Store.open(tmp_path / "elsewhere" / "link.zarr", mode="r+")

    with two_blocks.embeddings(key).claim(range(64)) as held:
        assert held
        assert not claimed(linked, key, 0)
    assert claimed(linked, key, 0)


def test_exclusive_waits_for_the_other_process_and_reloads_the_samples(store, process) -> None:
    other = process(
        """
        store = Store.open(sys.argv[1], mode="r+")
        with store.exclusive():
            print("held", flush=True)
            sys.stdin.readline()
            store.append([make_sample(3)])
        print("done", flush=True)
        """,
        store.location,
    )
    assert other.stdout.readline() == "held\n"
    seen: list[int] = []

    def wait_and_look() -> None:
        with store.exclusive():
            seen.append(store.n_rows)

    waiting = threading.Thread(target=wait_and_look)
    waiting.start()
    waiting.join(0.2)
    assert seen == []
    other.stdin.write("go on\n")
    other.stdin.flush()
    waiting.join(300)

    assert seen == [4]
    assert store.info(3).id == "image 3"


def test_locks_separate_the_threads_of_a_process_too(tmp_path) -> None:
    locks = StoreLocks.of(tmp_path / "d.zarr")
    results: list[bool] = []

    def attempt() -> None:
        with locks.try_acquire(7) as held:
            results.append(held)

    def wait() -> None:
        with locks.acquire(7):
            results.append(True)

    with locks.acquire(7):
        refused = threading.Thread(target=attempt)
        refused.start()
        refused.join()
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.1)
        assert results == [False]
        with locks.try_acquire(8) as other:
            assert other
    waiting.join(10)
    assert results == [False, True]
    assert StoreLocks.of(tmp_path / "d.zarr") is locks


def test_exclusive_all_excludes_every_other_writer(store, key, process) -> None:
    with store.embeddings(key).claim(range(64)), pytest.raises(StoreAccessError, match="another process is writing"):
        store.exclusive_all().__enter__()
    holder = process(HOLD_FIRST_BLOCK, store.location)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreAccessError, match="Run the same command again once it has finished"):
        store.exclusive_all().__enter__()
    holder.communicate("\n", timeout=300)

    with store.exclusive_all():
        assert not claimed(store, key, 0)
        other = process(HOLD_FIRST_BLOCK, store.location)
        assert other.stdout.readline() == "refused\n"
    assert claimed(store, key, 0)


def test_a_store_opened_for_reading_makes_no_lock(store, tmp_path) -> None:
    (tmp_path / ".drawn.zarr.lock").unlink()

    Store.open(store.location).table  # noqa: B018 - reads all it can

    assert not (tmp_path / ".drawn.zarr.lock").exists()


def test_no_two_locks_of_a_store_are_the_same_byte() -> None:
    keys = ["0" * 16, "0000001" + "f" * 9, "f" * 16]
    slots = [SAMPLES] + [
        slot for key in keys for slot in (shape_slot(key), *(block_slot(key, b) for b in (0, 1, 9999)))
    ]

    assert len(set(slots)) == len(slots)
    assert max(slots) < 2**63


def test_two_processes_that_write_blocks_of_one_key_leave_the_files_of_a_sequential_run(
    two_blocks, key, process, files, tmp_path
) -> None:
    program = """
        store = Store.open(sys.argv[1], mode="r+")
        embeddings = store.embeddings(make_key())
        rows = [60, 61, 62, 63] if sys.argv[2] == "0" else [64, 65, 66]
        with embeddings.claim(embeddings.blocks()[int(sys.argv[2])]) as held:
            assert held
            print("held", flush=True)
            sys.stdin.readline()
            for row in rows:
                embeddings.write([row], make_embedding(row)[None])
    """
    writers = [process(program, two_blocks.location, block) for block in "01"]
    for writer in writers:
        assert writer.stdout.readline() == "held\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0]

    sequential = make_store(tmp_path / "sequential.zarr", 67)
    for row in range(60, 67):
        sequential.embeddings(key).write([row], make_embeddings(row))
    assert dict(files) == dict(Files(tmp_path / "sequential.zarr"))
    assert two_blocks.embeddings(key).missing() == list(range(60))


def test_samples_appended_while_another_process_embeds_are_embedded_next(two_blocks, key) -> None:
    embedding_process = Store.open(two_blocks.location, mode="r+").embeddings(key)
    embedding_process.write([0], make_embeddings(0))
    with two_blocks.exclusive():
        two_blocks.append([make_sample(67)])
    two_blocks.embeddings(key).write([67], make_embeddings(67))
    embedding_process.write([1], make_embeddings(1))  # it knows of 67 rows, and there are 68

    found = Store.open(two_blocks.location).embeddings(key)
    assert [info.row for info in found.embedded_rows()] == [0, 1, 67]
    np.testing.assert_array_equal(found.read([0, 1, 67]), make_embeddings(0, 1, 67))


def test_an_interrupt_keeps_the_lock_until_pending_writes_have_ended(store, monkeypatch) -> None:
    write, begun, ended = LocalStore.set, [], []

    async def slow(self: LocalStore, key: str, value: Any) -> None:
        begun.append(key)
        if len(begun) == 1:
            signal.raise_signal(signal.SIGINT)  # reaches the main thread, which waits for this write
        await asyncio.sleep(0.2)
        await write(self, key, value)
        ended.append(key)

    monkeypatch.setattr(LocalStore, "set", slow)
    with pytest.raises(KeyboardInterrupt), store.exclusive():
        store.append([make_sample(3)])

    assert begun
    assert sorted(ended) == sorted(begun)
