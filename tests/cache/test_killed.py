"""Processes killed with SIGKILL while they write: the next run ends with the same files as an undisturbed run."""

import signal
import time

import numpy as np
import pytest

from nucseg_cache import Store, prune, verify
from tests.cache.drawn_store import Files, make_embedding, make_embeddings, make_sample, make_store

N_ROWS = 16

EMBED = f"""
    store = Store.open(sys.argv[1], mode="r+")
    with store.exclusive():
        store.append([make_sample(n) for n in range(store.n_rows, {N_ROWS})])
    embeddings = store.embeddings(make_key())
    print("started", flush=True)
    for block in embeddings.blocks():
        with embeddings.claim(block, wait=True):
            for row in embeddings.missing(block, sizes=True):
                embeddings.write([row], make_embedding(row)[None])
                print(row, flush=True)
"""


def test_embedding_killed_at_five_moments_and_resumed_ends_bit_equal(key, process, tmp_path) -> None:
    undisturbed = make_store(tmp_path / "undisturbed.zarr", N_ROWS)
    for row in range(N_ROWS):
        undisturbed.embeddings(key).write([row], make_embeddings(row))
    random = np.random.default_rng(7)
    path = tmp_path / "killed.zarr"
    make_store(path, 3)
    written: list[int] = []

    for moment in range(5):
        child = process(EMBED, path)
        lines = [child.stdout.readline() for _ in range(1 + moment)]
        time.sleep(random.uniform(0, 0.02))  # somewhere within the next row
        child.send_signal(signal.SIGKILL)
        lines += child.communicate()[0].splitlines()
        assert child.returncode == -signal.SIGKILL, "it was over before it was killed"
        rows = [int(line) for line in lines if line.strip().isdigit()]
        assert not set(rows) & set(written), "a finished row was computed again"
        written += rows

        seen = Store.open(path).embeddings(key)
        assert not set(written) & set(seen.missing(sizes=True))
        for row in written:
            np.testing.assert_array_equal(seen.read([row])[0], make_embedding(row))

    last = process(EMBED, path)
    last.communicate(timeout=300)
    assert last.returncode == 0
    assert verify(path).findings == ()
    prune(path)
    assert dict(Files(path)) == dict(Files(tmp_path / "undisturbed.zarr"))


READ = """
    store = Store.open(sys.argv[1])
    embeddings = store.embeddings(make_key())
    counts = dict.fromkeys(("old", "new", "bad"), 0)
    old = [make_embedding(row) for row in range(3)]
    new = [make_embedding(row, image_version=1) for row in range(3)]
    print("reading", flush=True)
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        values, bad = embeddings.try_read(range(3))
        bad_rows = {b.row for b in bad}
        for row in range(3):
            kind = "bad" if row in bad_rows else "old" if np.array_equal(values[row], old[row]) else "new"
            assert kind != "new" or np.array_equal(values[row], new[row]), "a row that is neither"
            counts[kind] += 1
        good, bad = store.try_read_samples(range(3))
        for found in good:
            expected = make_sample(int(found.id[-1]))
            for name in ("image", "instances", "ignore"):
                assert np.array_equal(getattr(found, name), getattr(expected, name)), "a sample that is neither"
            counts["old"] += 1
        counts["bad"] += len(bad)
        if sys.argv[3] == "reopen":
            try:
                store = Store.open(sys.argv[1])
                store.table
            except RowDamaged:
                pass
            embeddings = store.embeddings(make_key())
    print(counts["old"], counts["new"], counts["bad"], flush=True)
"""


@pytest.mark.parametrize("what", ["the same image", "another image"])
def test_a_reader_sees_whole_rows_or_an_error_while_another_process_writes(embedded, key, process, what) -> None:
    reader = process(READ, embedded.location, "0.7", "keep" if what == "another image" else "reopen")
    assert reader.stdout.readline() == "reading\n"
    version, embeddings = 0, embedded.embeddings(key)
    while reader.poll() is None:
        if what == "another image":
            version = 1 - version
            for row in range(3):
                embedded.replace(row, make_sample(row, image_version=version))
                embeddings.write([row], make_embedding(row, image_version=version)[None])
        else:
            for row in range(3):
                embedded.replace(row, make_sample(row))
                embeddings.write([row], make_embeddings(row))

    old, new, bad = map(int, reader.communicate()[0].split())
    assert reader.returncode == 0
    assert new == 0  # the reader has the descriptions from when it opened the store
    assert old > 0
    assert old + bad > 6
