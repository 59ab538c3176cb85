"""Stores made by `embed` from folders of images, all that is in them, and what reading damaged ones must give."""

import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nucseg.encoders import Encoder
from nucseg_cache import CacheError, Embeddings, Key, RowDamaged, RowInfo, SampleRow, Store, verify
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed

PIXELS = ("image", "instances", "ignore")
Group = tuple[str, str]
"""Hash of a key, name of a view."""


class ChannelEncoder(Encoder):
    """An embedding that can be foretold: the image's checksum, the channel's number and the cell's, added up."""

    identity = {"architecture": "checksum", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 8

    def resize(self, image: Any) -> Any:
        return image

    def run(self, images: Sequence[Any]) -> Any:
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
        channels = np.arange(256, dtype=np.float32)[:, None, None] % 5
        sums = [zlib.crc32(image.tobytes()) / 2**30 for image in images]
        return np.stack([ramp + channels - one for one in sums])

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


def draw(folder: Path, n_images: int, seed: int = 0) -> Path:
    """A folder of one's own: images of slides in sub-folders, masks beside them."""
    random = np.random.default_rng(seed)
    for number in range(n_images):
        for kind in ("images", "masks"):
            (folder / kind / f"Schnitt {number % 3} ü").mkdir(parents=True, exist_ok=True)
        name = Path(f"Schnitt {number % 3} ü") / f"n [{number}] 核.png"
        Image.fromarray(random.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(folder / "images" / name)
        mask = np.zeros((20, 16), np.uint8)
        mask[2:6, 1:5], mask[10:15, 8:14] = 1, 2 + number
        Image.fromarray(mask).save(folder / "masks" / name)
    return folder


def repaint(file: Path) -> None:
    """Change one pixel."""
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(file)


@dataclass(frozen=True, eq=False)
class Truth:
    """All that is in a sound store."""

    attributes: Mapping[str, Any]
    rows: Mapping[RowInfo, SampleRow]
    keys: Mapping[str, Key]
    recorded: Mapping[str, Any]
    described: Mapping[Group, Mapping[str, str]]
    embeddings: Mapping[tuple[str, str, bytes], tuple[Any, Any]]
    """(key, view, digest of the image) -> embedding, and prepared image where the view keeps one."""
    sizes: Mapping[Group, tuple[int, int]]
    sample_bytes: int

    @classmethod
    def of(cls, location: str | Path) -> "Truth":
        store = Store.open(location)
        keys = {key.hash: key for key in store.keys()}  # noqa: SIM118 - a method of Store
        groups = {(key.hash, view): store.embeddings(key, view) for key in keys.values() for view in store.views(key)}
        embeddings = {}
        for (key, view), group in groups.items():
            infos = group.embedded_rows()
            values, images = group.read_with_images([info.row for info in infos])
            for i, info in enumerate(infos):
                embeddings[key, view, info.image_digest] = values[i], None if images is None else images[i]
        return cls(
            attributes=attributes_of(store),
            rows=dict(zip(store.table, store.read_samples(range(store.n_rows)), strict=True)),
            keys=keys,
            recorded={key.hash: store.recorded(key) for key in keys.values()},
            described={name: group.described for name, group in groups.items()},
            embeddings=embeddings,
            sizes={name: group.file_bytes() for name, group in groups.items()},
            sample_bytes=store.file_bytes(),
        )

    def __add__(self, other: "Truth") -> "Truth":
        """What may be read where the samples as a whole are those of another moment."""
        return replace(self, rows={**self.rows, **other.rows}, embeddings={**other.embeddings, **self.embeddings})


def attributes_of(store: Store) -> dict[str, Any]:
    return {name: getattr(store, name) for name in ("dataset", "source", "notes", "preparation", "n_rows")}


@dataclass(frozen=True, eq=False)
class Shelf:
    """A store with what it was made from, as it was before something changed, and one of other images."""

    name: str
    source: Path
    now: Path
    earlier: Path
    """The store before an image and a mask changed, one vanished and one came."""
    stranger: Path
    """A store of other images under the same names."""
    embeds: tuple[Mapping[str, Any], ...]
    truth: Truth
    truth_earlier: Truth
    truth_stranger: Truth

    def refuse_difference(self, location: Path) -> None:
        """Raise Wrong where a store that was mended does not hold what this one does."""
        found = Truth.of(location)
        same({**found.attributes, "n_rows": 0}, {**self.truth.attributes, "n_rows": 0}, "attributes")
        same(found.keys, self.truth.keys, "keys")
        same(found.described, self.truth.described, "what is described of views")
        same(found.recorded, self.truth.recorded, "what is recorded beside keys")
        samples = {replace(info, row=0): sample for info, sample in found.rows.items() if info.present}
        expected = {replace(info, row=0): sample for info, sample in self.truth.rows.items() if info.present}
        same(set(samples), set(expected), "samples")
        for info, sample in expected.items():
            same_sample(samples[info], sample)
            for group in self.truth.described:
                name = *group, info.image_digest
                if name not in found.embeddings or not same_arrays(found.embeddings[name], self.truth.embeddings[name]):
                    raise Wrong(f"{info.id} of {group} is not what it was")
        if bad := verify(location, clear=False).findings:
            raise Wrong(f"verify still finds {bad}")

    def embed(self, location: Path) -> int:
        """Bring a store up to date; the number of images that were encoded."""
        return sum(embedded(self.source, location, wanted) for wanted in self.embeds)


def embedded(source: Path, location: Path, wanted: Mapping[str, Any]) -> int:
    """Embed with the encoder above, which is shown the images as they are."""
    config = EmbedConfig(dataset=location.stem, source=source, encoder="random", cache=str(location.parent), **wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nucseg_pipeline.embed.stage.open_encoder", lambda *args, **options: ChannelEncoder())
        return embed(config, lambda done, total, what: None).n_encoded


def shelve(folder: Path, n_images: int, embeds: Sequence[Mapping[str, Any]]) -> Shelf:
    source, other = draw(folder / "source", n_images), draw(folder / "other", n_images, seed=1)
    now, earlier, stranger = (folder / name / "mine.zarr" for name in ("now", "earlier", "stranger"))
    for wanted in embeds:
        embedded(source, now, wanted)
        embedded(other, stranger, wanted)
    shutil.copytree(now, earlier)
    changed, masked, gone, added = (source / "images" / f"Schnitt {n % 3} ü" / f"n [{n}] 核.png" for n in (1, 2, 3, 99))
    repaint(changed)
    mask = Image.fromarray(np.full((20, 16), 3, np.uint8))
    mask.save(Path(str(masked).replace("images", "masks")))
    shutil.copy(changed, added)
    repaint(added)
    repaint(changed)
    mask.save(Path(str(added).replace("images", "masks")))
    repaint(added)
    gone.unlink()
    Path(str(gone).replace("images", "masks")).unlink()
    for wanted in embeds:
        embedded(source, now, wanted)
    return Shelf(
        folder.name, source, now, earlier, stranger, tuple(embeds), Truth.of(now), Truth.of(earlier), Truth.of(stranger)
    )


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Shelf]]:
    """Shelves by name, each made once; at the end they must be what they were."""
    folder = tmp_path_factory.mktemp("shelves")
    (folder / "soft.toml").write_text('variants = 1\n[[transform]]\nname = "HEDJitter"\n')
    soft = str(folder / "soft.toml")
    kinds: dict[str, tuple[int, list[dict[str, Any]]]] = {
        "f16 and a view": (4, [{"views": soft}]),
        "i8 and f32": (4, [{"format": "i8"}, {"format": "f32"}]),
        "two blocks": (65, [{"format": "i6"}]),
    }
    made: dict[str, Shelf] = {}

    def shelf(name: str) -> Shelf:
        if name not in made:
            made[name] = shelve(folder / name, *kinds[name])
        return made[name]

    yield shelf
    for one in made.values():
        found = Truth.of(one.now)
        assert (found.attributes, list(found.rows)) == (one.truth.attributes, list(one.truth.rows))


class Wrong(AssertionError):
    """What a store gave is not right, or an error does not say what it has to."""


@dataclass
class Reading:
    """Reads all that is in a store, and holds it against the truth."""

    location: Path
    truth: Truth
    n_rows: int
    """That are in the sound store."""
    complaints: list[CacheError] = field(default_factory=list)
    bad_samples: set[int] = field(default_factory=set)
    bad_embeddings: dict[Group, set[int]] = field(default_factory=dict)

    def all(self, *, verified: bool = True) -> "Reading":
        """Raise Wrong for anything that is neither right nor one of the cache's own errors."""
        store = self._try(lambda: Store.open(self.location))
        if store is None:
            self.bad_samples = set(range(self.n_rows))
            self.bad_embeddings = {group: set(self.bad_samples) for group in self.truth.described}
            return self
        self._attributes(store)
        described = self._samples(store)
        self._keys(store)
        for group in self.truth.described:
            self._embeddings(store, group, described)
        if verified:
            self._verification()
        return self

    def _try(self, call: Callable[[], Any]) -> Any:
        """The result, or None after a complaint that names the store."""
        try:
            return call()
        except CacheError as error:
            if str(self.location) not in str(error):
                raise Wrong(f"the message does not name {self.location}: {error}") from error
            if isinstance(error, RowDamaged) and not all(f"row {bad.row} (" in str(error) for bad in error.bad[:8]):
                raise Wrong(f"a row is not named: {error}") from error
            self.complaints.append(error)
            return None

    def _attributes(self, store: Store) -> None:
        same(attributes_of(store), self.truth.attributes, "attributes")

    def _descriptions(self, store: Store) -> dict[int, RowInfo]:
        described = {info.row: info for info in store.trusted_rows()}
        for row, info in described.items():
            if info not in self.truth.rows or info.row != row or store.info(row) != info:
                raise Wrong(f"row {row} is described as {info}")
            if not store.has(info.id) or store.row_of(info.id) != row:
                raise Wrong(f"{info.id} is not found in row {row}")
        table = self._try(lambda: store.table)
        if table is not None and [info.row for info in table] != list(range(store.n_rows)):
            raise Wrong(f"the table has the rows {[info.row for info in table]}")
        return described

    def _samples(self, store: Store) -> dict[int, RowInfo]:
        described = self._descriptions(store)
        rows = range(store.n_rows)
        good, bad = self._try(lambda: store.try_read_samples(rows)) or ([], [])
        unread = set(rows) - {store.row_of(one.id) for one in good}
        if good and {one.row for one in bad} != unread:
            raise Wrong(f"rows {sorted(unread)} are not there, told are {bad}")
        for one in good:
            same_sample(one, self.truth.rows[described[store.row_of(one.id)]])
        self.bad_samples = unread
        read = self._try(lambda: store.read_samples(rows))
        if (read is not None) is bool(unread):
            raise Wrong(f"rows {sorted(unread)} cannot be read, and reading all {'fails not' if read else 'fails'}")
        damaged = self._try(store.damaged)
        n_bytes = self._try(store.file_bytes)
        if not damaged and damaged is not None and n_bytes not in (None, self._sample_bytes(described)):
            raise Wrong(f"samples are said to take {n_bytes} bytes, {self.truth.sample_bytes} were written")
        return described

    def _sample_bytes(self, described: Mapping[int, RowInfo]) -> int | None:
        """As far as it can be foretold: not where the samples are those of another moment."""
        current = list(described.values()) == list(self.truth.rows)[: len(described)]
        return self.truth.sample_bytes if current else None

    def _keys(self, store: Store) -> None:
        keys = self._try(store.keys)
        if keys is None:
            return
        for key in keys:
            self._key(store, key)
        for gone in set(self.truth.keys) - {key.hash for key in keys}:
            if self._try(lambda gone=gone: store.find(dict(self.truth.keys[gone].fields))) is not None:
                raise Wrong(f"{gone} is not there, and is found")

    def _key(self, store: Store, key: Key) -> None:
        if self.truth.keys.get(key.hash) != key:
            raise Wrong(f"there is a key {key}")
        recorded = self._try(lambda: store.recorded(key))
        if recorded is not None:
            same(recorded, self.truth.recorded[key.hash], "what is recorded beside a key")
        views = self._try(lambda: store.views(key)) or ()
        if not {(key.hash, view) for view in views} <= set(self.truth.described):
            raise Wrong(f"{key.hash} has the views {views}")
        found = self._try(lambda: store.find(dict(key.fields)))
        if found not in (None, key):
            raise Wrong(f"asked for {key}, found {found}")

    def _embeddings(self, store: Store, group: Group, described: Mapping[int, RowInfo]) -> None:
        key, view = group
        embeddings = store.embeddings(self.truth.keys[key], view)
        rows = list(range(store.n_rows))
        found = self._try(lambda: embeddings.described)
        if found:
            same(found, self.truth.described[group], "what is described of a view")
        there = self._try(embeddings.embedded_rows)
        missing = self._try(embeddings.missing)
        by_size = self._try(lambda: embeddings.missing(sizes=True))
        values, bad = self._read_rows(embeddings, rows)
        self.bad_embeddings[group] = set(rows) if values is None else {one.row for one in bad}
        good = set(rows) - self.bad_embeddings[group]
        for row in good:
            self._right_embedding(group, described[row], values, row)
        if there is not None and not good <= {info.row for info in there}:
            raise Wrong(f"rows {sorted(good)} of {group} can be read, there are said to be {there}")
        if missing is not None and (good & set(missing) or not set(missing) <= set(by_size or missing)):
            raise Wrong(f"rows {sorted(good)} of {group} can be read, {missing} and {by_size} are said to be missing")
        self._noted_bytes(embeddings, group, there, by_size)

    def _read_rows(self, embeddings: Embeddings, rows: list[int]) -> tuple[Any, list[Any]]:
        values, bad = self._try(lambda: embeddings.try_read(rows)) or (None, [])
        if values is None:
            return None, []
        bad_rows = {one.row for one in bad}
        for one in bad:
            if values[one.row].any() or (one.id and f"({one.id})" not in str(one)):
                raise Wrong(f"a bad row is not told or not cleared: {one}")
        good = [row for row in rows if row not in bad_rows][-1:]
        for read in (embeddings.read, embeddings.read_stored, embeddings.read_with_images):
            if good and self._try(lambda read=read: read(good)) is None:
                raise Wrong(f"row {good} can be read, but not by {read}")
            if bad_rows and self._try(lambda read=read: read([*good, max(bad_rows)])) is not None:
                raise Wrong(f"row {max(bad_rows)} is bad, and read by {read}")
        return values, bad

    def _right_embedding(self, group: Group, info: RowInfo, values: Any, row: int) -> None:
        expected = self.truth.embeddings.get((*group, info.image_digest))
        if expected is None or not np.array_equal(values[row], expected[0]):
            raise Wrong(f"row {row} of {group} is not what was written")

    def _noted_bytes(self, embeddings: Embeddings, group: Group, there: Any, by_size: list[int] | None) -> None:
        noted = self._try(embeddings.file_bytes)
        if noted is None or there is None:
            return
        if noted[0] != len(there):
            raise Wrong(f"{noted[0]} embeddings are counted, {len(there)} are there")
        is_whole = noted[0] == self.truth.sizes[group][0] and not by_size
        if is_whole and noted != self.truth.sizes[group]:
            raise Wrong(f"{group} is said to take {noted}, written were {self.truth.sizes[group]}")

    def _verification(self) -> None:
        found = self._try(lambda: verify(self.location, clear=False))
        if found is None:
            return
        told = {(finding.what, finding.bad.row) for finding in found.findings}
        unread = {("samples", row) for row in self.bad_samples}
        if not unread <= told:
            raise Wrong(f"verify does not tell {sorted(unread - told)}")
        self.verified = told


def same(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise Wrong(f"{what}: {found}, expected {expected}")


def same_arrays(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def same_sample(found: SampleRow, expected: SampleRow) -> None:
    for name in ("id", "group", "stratum", "mpp", "size", "image_digest", "mask_digest"):
        same(getattr(found, name), getattr(expected, name), name)
    for name in PIXELS:
        if not np.array_equal(getattr(found, name), getattr(expected, name)):
            raise Wrong(f"{name} of {found.id} is not what was written")


@pytest.fixture
def reading() -> type[Reading]:
    return Reading


@pytest.fixture
def through_zarr(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which stores in a folder are read as those on an object store are."""

    def context() -> Any:
        patch = pytest.MonkeyPatch.context()
        return _Patched(patch)

    return context


class _Patched:
    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._context.__enter__().setattr("nucseg_cache.reading.ChunkFiles.of", lambda array: None)

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)
