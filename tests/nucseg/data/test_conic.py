"""CoNIC: files of patches and their names; complete, incomplete, damaged, and a real patch."""

import csv
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nucseg.data import Entry, open_dataset
from nucseg.errors import DataError

NAMES = ["consep_1-0000", "consep_1-0001", "glas_testA_12-0000", "dpath_7-0003", "crag_7-0000"]


def patch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image, and instances and classes: 100 nuclei on a lattice, some of them at the border."""
    rng = np.random.default_rng(seed)
    ids, classes = np.zeros((2, 256, 256), np.uint16)
    for number, id_ in enumerate(rng.permutation(np.arange(1, 101))):
        row, column = divmod(number, 10)
        nucleus = np.s_[row * 26 : row * 26 + 12, column * 26 : column * 26 + rng.integers(5, 20)]
        ids[nucleus], classes[nucleus] = id_, rng.integers(1, 7)
    return rng.integers(0, 256, (256, 256, 3)).astype(np.uint8), np.stack([ids, classes], axis=-1)


IMAGES, LABELS = (np.stack(part) for part in zip(*map(patch, range(5)), strict=True))


def write(root: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, names: list[str] = NAMES) -> Path:
    root.mkdir(exist_ok=True)
    np.save(root / "images.npy", images)
    np.save(root / "labels.npy", labels)
    (root / "patch_info.csv").write_text("\n".join(["patch_info", *names]) + "\n")
    return root


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write(tmp_path / "CoNIC")


def entries(root: Path) -> tuple[Entry, ...]:
    return open_dataset("conic", root).entries


def test_ids_groups_and_strata_come_from_the_names_in_the_order_of_the_files(release) -> None:
    assert [(entry.id, entry.group, entry.stratum, entry.mpp) for entry in entries(release)] == [
        ("consep_1-0000", "consep_1", "consep", 0.5),
        ("consep_1-0001", "consep_1", "consep", 0.5),
        ("glas_testA_12-0000", "glas_testA_12", "glas", 0.5),
        ("dpath_7-0003", "dpath_7", "dpath", 0.5),
        ("crag_7-0000", "crag_7", "crag", 0.5),
    ]
    assert open_dataset("conic", release).notes == ("CoNIC: 5 of the 4981 released images.",)


@pytest.mark.parametrize("index", range(5))
def test_a_patch_has_the_content_that_was_written(release, index) -> None:
    entry = entries(release)[index]
    sample, *digests = entry.read()

    np.testing.assert_array_equal(sample.image, IMAGES[index])
    np.testing.assert_array_equal(sample.instances, LABELS[index, ..., 0])
    assert (sample.instances.dtype, sample.ignore.any()) == (np.int32, False)
    np.testing.assert_array_equal(entry.read_image()[0], IMAGES[index])
    assert entry.read_image()[1] == entry.digests()[0]
    assert tuple(digests) == entry.digests()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64, np.dtype(">u2")])
def test_labels_of_any_integer_type_are_read(tmp_path, dtype) -> None:
    sample, *_ = entries(write(tmp_path, labels=LABELS.astype(dtype)))[2].read()

    np.testing.assert_array_equal(sample.instances, LABELS[2, ..., 0])


def test_arrays_in_fortran_order_are_read_the_same(tmp_path) -> None:
    root = write(tmp_path, np.asfortranarray(IMAGES), np.asfortranarray(LABELS))

    sample, *digests = entries(root)[3].read()

    np.testing.assert_array_equal(sample.image, IMAGES[3])
    np.testing.assert_array_equal(sample.instances, LABELS[3, ..., 0])
    assert tuple(digests) == entries(write(tmp_path))[3].digests()


def test_a_nucleus_in_two_pieces_stays_one_even_in_8_bit_labels(tmp_path) -> None:
    labels = np.zeros((5, 256, 256, 2), np.uint8)
    labels[0, 2:6, 2:6, 0] = labels[0, 9:12, 2:6, 0] = 1

    assert entries(write(tmp_path, labels=labels))[0].read()[0].instances.max() == 1


def test_a_digest_is_of_type_shape_and_values_of_the_patch(release) -> None:
    image, ids = IMAGES[1], np.ascontiguousarray(LABELS[1, ..., 0])

    assert entries(release)[1].digests() == (
        hashlib.sha256(b"|u1(256, 256, 3)" + image.tobytes()).digest(),
        hashlib.sha256(b"<u2(256, 256)" + ids.tobytes()).digest(),
    )


def test_digests_depend_on_exactly_what_is_used_of_a_patch(tmp_path) -> None:
    before = [entry.digests() for entry in entries(write(tmp_path))]
    images, labels = IMAGES.copy(), LABELS.copy()
    images[2, 255, 255, 2] ^= 1
    labels[3, 0, 0, 0] += 1
    labels[4, ..., 1] = 0

    after = [entry.digests() for entry in entries(write(tmp_path, images, labels))]

    changed = [(old[0] != new[0], old[1] != new[1]) for old, new in zip(before, after, strict=True)]
    assert changed == [(False, False), (False, False), (True, False), (False, True), (False, False)]


def test_the_digests_of_a_patch_do_not_depend_on_its_index(tmp_path) -> None:
    before = [entry.digests() for entry in entries(write(tmp_path))]

    after = [entry.digests() for entry in entries(write(tmp_path, IMAGES[::-1], LABELS[::-1], NAMES[::-1]))]

    assert after == before[::-1]


def test_a_sample_does_not_change_with_its_file(release) -> None:
    sample, *_ = entries(release)[0].read()
    with (release / "images.npy").open("r+b") as stream:
        stream.seek(-IMAGES.nbytes, os.SEEK_END)
        stream.write(bytes(IMAGES[0].nbytes))

    np.testing.assert_array_equal(sample.image, IMAGES[0])


def test_entries_can_be_sent_to_other_processes(release) -> None:
    sent = pickle.loads(pickle.dumps(entries(release)))

    assert sent == entries(release)
    np.testing.assert_array_equal(sent[4].read()[0].image, IMAGES[4])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists what a process has open")
def test_nothing_stays_open_after_a_read(release) -> None:
    all_entries = entries(release)
    samples = [all_entries[0].read()]
    n_before = len(list(Path("/proc/self/fd").iterdir()))

    samples += [entry.read() for entry in all_entries * 20]

    assert len(list(Path("/proc/self/fd").iterdir())) == n_before
    assert "images.npy" not in Path("/proc/self/maps").read_text()


def test_replaced_files_are_read_again(release) -> None:
    first, last = entries(release)[0], entries(release)[4]
    first.read()

    write(release, IMAGES[1:], LABELS[1:], NAMES[1:])

    np.testing.assert_array_equal(first.read()[0].image, IMAGES[1])
    for access in (last.read, last.read_image, last.digests):
        with pytest.raises(DataError, match=r"images\.npy has 4 patches now, but had at least 5 .* start again"):
            access()


def test_a_file_truncated_after_listing_is_an_error_and_not_a_crash(release) -> None:
    entry = entries(release)[4]
    os.truncate(release / "labels.npy", 300_000)

    entry.read_image()
    with pytest.raises(DataError, match=r"labels\.npy \(300,000 bytes\) is not a complete NumPy array"):
        entry.read()


def test_a_class_map_instead_of_instances_is_refused(release) -> None:
    write(release, labels=LABELS[..., ::-1])

    with pytest.raises(DataError, match=r"Patch 3 \(dpath_7-0003\) of .*labels\.npy is not an instance map"):
        entries(release)[3].read()


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffpatch_info\r\n" + "\r\n".join(NAMES) + "\r\n",
        ",patch_info\n" + "\n".join(f"{index},{name}" for index, name in enumerate(NAMES)),
        'patch_info\n"' + '"\n"'.join(NAMES) + '"\n\n',
    ],
    ids=["Windows", "with an index", "quoted"],
)
def test_a_table_saved_by_another_program_gives_the_same_names(release, table) -> None:
    (release / "patch_info.csv").write_bytes(table.encode())

    assert [entry.id for entry in entries(release)] == NAMES


def change(root: Path, name: str, content: np.ndarray | bytes | int | None) -> None:
    """Replace files by an array or by bytes, cut them to a size, or remove them."""
    for file in map(root.joinpath, name.split()):
        if isinstance(content, np.ndarray):
            np.save(file, content)
        elif isinstance(content, bytes):
            file.write_bytes(content)
        elif content is None:
            file.unlink()
        else:
            os.truncate(file, content)


def table(*rows: str) -> bytes:
    return "\n".join(rows).encode()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, IMAGES)
    return stream.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 979300000\n"


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("images.npy", None, ["images.npy missing in ", "holds labels.npy, patch_info.csv.", "copy images.npy there"]),
        ("labels.npy patch_info.csv", None, ["labels.npy, patch_info.csv missing in ", "which holds images.npy."]),
        ("images.npy", 700_000, ["images.npy (700,000 bytes) is not a complete NumPy array", "truncated", "again"]),
        ("labels.npy", 64, ["labels.npy (64 bytes) is not a complete NumPy array", "again"]),
        ("labels.npy", 0, ["labels.npy (0 bytes) is not a complete NumPy array"]),
        ("images.npy", POINTER, [f"images.npy ({len(POINTER)} bytes) is not a complete NumPy array"]),
        ("images.npy", archive(), ["images.npy (", "is not a complete NumPy array"]),
        ("images.npy", IMAGES[..., 0], ["images.npy holds (5, 256, 256) of uint8", "(patches, 256, 256, 3)"]),
        (
            "images.npy",
            IMAGES[:, :250],
            ["images.npy holds (5, 250, 256, 3) of uint8; expected (patches, 256, 256, 3)"],
        ),
        ("images.npy", IMAGES / 255, ["images.npy holds (5, 256, 256, 3) of float64;", " of uint8"]),
        ("images.npy", np.array(1, np.uint8), ["images.npy holds () of uint8;"]),
        ("labels.npy", LABELS.astype(np.float32), ["labels.npy holds (5, 256, 256, 2) of float32;", "integers"]),
        ("labels.npy", LABELS[..., 0], ["labels.npy holds (5, 256, 256) of uint16;", "(patches, 256, 256, 2)"]),
        ("images.npy", IMAGES[:4], ["4 patches in images.npy, 5 in labels.npy, 5 names", "from the same release"]),
        ("labels.npy", LABELS[:3], ["5 patches in images.npy, 3 in labels.npy, 5 names in patch_info.csv"]),
        (
            "patch_info.csv",
            table("patch_info", *NAMES[:2]),
            ["5 patches in images.npy, 5 in labels.npy, 2 names in patch_info.csv"],
        ),
        (
            "patch_info.csv",
            table(*NAMES),
            ["patch_info.csv has the columns consep_1-0000; expected a column patch_info"],
        ),
        ("patch_info.csv", table(), ["patch_info.csv has no columns; expected a column patch_info"]),
        ("patch_info.csv", b"patch_info\n\xff\xfe\n", ["patch_info.csv is not a CSV table in UTF-8"]),
        ("patch_info.csv", b"patch_info\n" + b"a" * 200_000, ["patch_info.csv is not a CSV table in UTF-8"]),
        (
            "patch_info.csv",
            table("patch_info", *NAMES[:3], "dpath-7", "crag_7_0000"),
            ["2 of 5 names in ", "<cohort>_<source>-<index>", "'dpath-7', 'crag_7_0000'"],
        ),
        ("patch_info.csv", table("patch_info", *NAMES[:3], NAMES[0], NAMES[1]), ["repeats 2 names: consep_1-0000, "]),
    ],
)
def test_incomplete_or_wrong_copies_are_refused_with_the_reason(release, name, content, fragments) -> None:
    change(release, name, content)

    with pytest.raises(DataError) as error:
        open_dataset("conic", release)

    assert [text for text in fragments if text not in str(error.value)] == []
    assert str(release) in str(error.value)


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_python_objects_are_refused_and_never_unpickled(release, tmp_path) -> None:
    np.save(release / "labels.npy", np.array([Trap(tmp_path / "sprung")] * 5, object), allow_pickle=True)

    with pytest.raises(DataError, match=r"labels\.npy .* is not a complete NumPy array of numbers"):
        open_dataset("conic", release)
    assert not (tmp_path / "sprung").exists()
    np.load(release / "labels.npy", allow_pickle=True)
    assert (tmp_path / "sprung").exists()


def test_a_damaged_header_gives_an_error_or_the_same_patches(release) -> None:
    file = release / "images.npy"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole[:128])
        data[rng.integers(128)] = rng.integers(256)
        with file.open("r+b") as stream:
            stream.write(data)
        try:
            np.testing.assert_array_equal(entries(release)[1].read_image()[0], IMAGES[1])
        except DataError:
            refused += 1
    assert refused > 50


COHORTS = {"dpath": 70, "crag": 64, "glas": 63, "consep": 16, "pannuke": 27}
"""Source images of each cohort, invented like their numbers of patches; the total number of patches is real."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release at full size, 2.3 GB, as sparse files in which only three patches are written."""
    root = tmp_path_factory.mktemp("conic")
    sources = [f"{cohort}_{number}" for cohort, n in COHORTS.items() for number in range(1, n + 1)]
    share = np.bincount(np.random.default_rng(0).integers(0, len(sources), 4981), minlength=len(sources))
    with (root / "patch_info.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patch_info"])
        table.writerows([f"{s}-{i:04d}"] for s, n in zip(sources, share, strict=True) for i in range(n))
    images = np.lib.format.open_memmap(root / "images.npy", "w+", np.uint8, (4981, 256, 256, 3))
    labels = np.lib.format.open_memmap(root / "labels.npy", "w+", np.uint16, (4981, 256, 256, 2))
    for seed, index in enumerate((0, 2490, 4980)):
        images[index], labels[index] = patch(seed)
    images.flush()
    labels.flush()
    return root


def test_the_whole_release_is_listed_in_its_groups(whole) -> None:
    data_set = open_dataset("conic", whole)
    groups = {entry.group: entry.stratum for entry in data_set.entries}

    assert sum(file.stat().st_size for file in whole.glob("*.npy")) > 2.2e9
    assert (len(data_set.entries), data_set.notes) == (4981, ())
    assert Counter(groups.values()) == COHORTS


MEASURED = """
import json, pathlib, re, sys
from nucseg.data import open_dataset

entries = open_dataset("conic", pathlib.Path(sys.argv[1])).entries
digests = [entry.digests() for entry in entries[::30]]
read = [entries[index].read() for index in (0, 2490, 4980)]
print(json.dumps({
    "n_digests": len(digests),
    "n_different": len(set(digests)),
    "ids": [sample.id for sample, *_ in read],
    "instances": [int(sample.instances.astype("int64").sum()) for sample, *_ in read],
    "images": [int(sample.image.astype("int64").sum()) for sample, *_ in read],
    # not getrusage: its maximum includes the memory of the parent process
    "peak_kib": int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]),
}))
"""


def test_the_whole_release_is_read_with_little_memory(whole) -> None:
    command = [sys.executable, "-c", MEASURED, str(whole)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    expected = [patch(seed) for seed in range(3)]
    assert measured["instances"] == [int(labels[..., 0].astype(np.int64).sum()) for _, labels in expected]
    assert measured["images"] == [int(image.astype(np.int64).sum()) for image, _ in expected]
    assert measured["ids"] == [entries(whole)[index].id for index in (0, 2490, 4980)]
    assert (measured["n_digests"], measured["n_different"]) == (167, 4)  # the three that were written, and holes
    assert measured["peak_kib"] < 2**20  # 1 GiB; the files are twice that


@pytest.mark.shared
def test_the_real_patch_is_read_unchanged(shared) -> None:
    root = shared / "data" / "conic"
    labels = np.load(root / "labels.npy")

    (entry,) = entries(root)
    sample, *digests = entry.read()

    assert (entry.id, entry.group, entry.stratum) == ("consep_1-0000", "consep_1", "consep")
    np.testing.assert_array_equal(sample.image, np.load(root / "images.npy")[0])
    np.testing.assert_array_equal(sample.instances, labels[0, ..., 0])
    np.testing.assert_array_equal(sample.instances > 0, labels[0, ..., 1] > 0)
    assert len(np.unique(sample.instances)) == 146
    assert tuple(digests) == entry.digests()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nucseg.data.patches.np.lib.format.open_memmap", r"images\.npy cannot be read: Permission denied"),
        ("nucseg.data.conic.csv.DictReader", r"patch_info\.csv cannot be read: Permission denied"),
    ],
)
def test_an_unreadable_file_is_named(release, function, message, monkeypatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(function, refuse)
    with pytest.raises(DataError, match=message):
        open_dataset("conic", release)
