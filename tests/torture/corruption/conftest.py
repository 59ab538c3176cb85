"""Stores that `embed` has filled, their contents, and a reader that compares a damaged store with them."""

import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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
    """Its embedding is the sum of a ramp, the channel's number and the image's checksum."""

    identity = {"architecture": "checksum", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 8

    def resize(self, image: Any) -> Any:
        return image

    def run(self, images: Sequence[Any]) -> Any:
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
        channels = np.arange(256, dtype=np.float32)[:, None, None] % 5
        sums = [zlib.crc32(image.tobytes()) / 2**30 for image in images]
        return np.stack([ramp + channels - checksum for checksum in sums])

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


def draw(folder: Path, n_images: int, seed: int = 0) -> Path:
    """Write a folder data set: images of three slides in sub-folders, and their masks."""
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
class Contents:
    """Everything in an intact store."""

    attributes: Mapping[str, Any]
    rows: Mapping[RowInfo, SampleRow]
    keys: Mapping[str, Key]
    recorded: Mapping[str, Any]
    described: Mapping[Group, Mapping[str, str]]
    embeddings: Mapping[tuple[str, str, bytes], tuple[Any, Any]]
    """(key, view, digest of the image) -> embedding, and prepared image if the view stores it."""
    sizes: Mapping[Group, tuple[int, int]]
    sample_bytes: int

    @classmethod
    def of(cls, location: str | Path) -> "Contents":
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

    def __add__(self, other: "Contents") -> "Contents":
        """What may be read if the samples come from another version of the store."""
        return replace(self, rows={**self.rows, **other.rows}, embeddings={**other.embeddings, **self.embeddings})


def attributes_of(store: Store) -> dict[str, Any]:
    return {name: getattr(store, name) for name in ("dataset", "source", "notes", "preparation", "n_rows")}


@dataclass(frozen=True, eq=False)
class Stores:
    """A store with its source, an earlier version of it, and a store of other images."""

    name: str
    source: Path
    current: Path
    earlier: Path
    """The store before an image and a mask changed, an image was deleted and one was added."""
    other: Path
    """A store of other images with the same names."""
    embeds: tuple[Mapping[str, Any], ...]
    contents: Contents
    earlier_contents: Contents
    other_contents: Contents

    def check_repaired(self, location: Path) -> None:
        """Raise Mismatch if a repaired store differs from the current one."""
        found = Contents.of(location)
        same({**found.attributes, "n_rows": 0}, {**self.contents.attributes, "n_rows": 0}, "attributes")
        same(found.keys, self.contents.keys, "keys")
        same(found.described, self.contents.described, "the description of views")
        same(found.recorded, self.contents.recorded, "the records of keys")
        samples = {replace(info, row=0): sample for info, sample in found.rows.items() if info.present}
        expected = {replace(info, row=0): sample for info, sample in self.contents.rows.items() if info.present}
        same(set(samples), set(expected), "samples")
        for info, sample in expected.items():
            same_sample(samples[info], sample)
            for group in self.contents.described:
                name = *group, info.image_digest
                if name not in found.embeddings or not same_arrays(
                    found.embeddings[name], self.contents.embeddings[name]
                ):
                    raise Mismatch(f"{info.id} of {group} differs")
        if bad := verify(location, clear=False).findings:
            raise Mismatch(f"verify still finds {bad}")

    def embed(self, location: Path) -> int:
        """Update a store; returns the number of encoded images."""
        return sum(run_embed(self.source, location, options) for options in self.embeds)


def run_embed(source: Path, location: Path, options: Mapping[str, Any]) -> int:
    """Embed with the encoder above; returns the number of encoded images."""
    config = EmbedConfig(dataset=location.stem, source=source, encoder="random", cache=str(location.parent), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nucseg_pipeline.embed.stage.open_encoder", lambda *args, **kwargs: ChannelEncoder())
        return embed(config, lambda done, total, what: None).n_encoded


def build_stores(folder: Path, n_images: int, embeds: Sequence[Mapping[str, Any]]) -> Stores:
    source, others = draw(folder / "source", n_images), draw(folder / "other source", n_images, seed=1)
    names = ("current", "earlier", "other")
    paths = [folder / name / "mine.zarr" for name in names]
    current, earlier, other = paths
    for options in embeds:
        run_embed(source, current, options)
        run_embed(others, other, options)
    shutil.copytree(current, earlier)
    changed, masked, gone, added = (source / "images" / f"Schnitt {n % 3} ü" / f"n [{n}] 核.png" for n in (1, 2, 3, 99))
    repaint(changed)
    mask = Image.fromarray(np.pad(np.full((8, 8), 3, np.uint8), ((4, 8), (4, 4))))
    mask.save(Path(str(masked).replace("images", "masks")))
    shutil.copy(changed, added)
    repaint(added)
    repaint(changed)
    mask.save(Path(str(added).replace("images", "masks")))
    repaint(added)
    gone.unlink()
    Path(str(gone).replace("images", "masks")).unlink()
    for options in embeds:
        run_embed(source, current, options)
    return Stores(folder.name, source, *paths, tuple(embeds), *map(Contents.of, paths))


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stores]]:
    """Creates stores by name, each once; at the end they must be unchanged."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "soft.toml").write_text('variants = 1\n[[transform]]\nname = "HEDJitter"\n')
    soft = str(folder / "soft.toml")
    kinds: dict[str, tuple[int, list[dict[str, Any]]]] = {
        "f16 and a view": (4, [{"views": soft}]),
        "i8 and f32": (4, [{"format": "i8"}, {"format": "f32"}]),
        "two blocks": (65, [{"format": "i6"}]),
    }
    created: dict[str, Stores] = {}

    def create(name: str) -> Stores:
        if name not in created:
            created[name] = build_stores(folder / name, *kinds[name])
        return created[name]

    yield create
    for each in created.values():
        found = Contents.of(each.current)
        assert (found.attributes, list(found.rows)) == (each.contents.attributes, list(each.contents.rows))


class Mismatch(AssertionError):
    """A store returned a wrong value, or an error message lacks something."""


@dataclass
class StoreReader:
    """Reads everything in a store, and compares it with the expected contents."""

    location: Path
    contents: Contents
    n_rows: int
    """The rows of the intact store."""
    errors: list[CacheError] = field(default_factory=list)
    bad_samples: set[int] = field(default_factory=set)
    bad_embeddings: dict[Group, set[int]] = field(default_factory=dict)

    def read_all(self, *, verified: bool = True) -> "StoreReader":
        """Raise Mismatch unless every result is right, or one of the cache's own errors."""
        store = self._try(lambda: Store.open(self.location))
        if store is None:
            self.bad_samples = set(range(self.n_rows))
            self.bad_embeddings = {group: set(self.bad_samples) for group in self.contents.described}
            return self
        self._attributes(store)
        described = self._samples(store)
        self._keys(store)
        for group in self.contents.described:
            self._embeddings(store, group, described)
        if verified:
            self._verification()
        return self

    def _try(self, call: Callable[[], Any]) -> Any:
        """The result; None after an error, which must name the store."""
        try:
            return call()
        except CacheError as error:
            if str(self.location) not in str(error):
                raise Mismatch(f"the message does not name {self.location}: {error}") from error
            if isinstance(error, RowDamaged) and not all(f"row {bad.row} (" in str(error) for bad in error.bad[:8]):
                raise Mismatch(f"a row is not named: {error}") from error
            self.errors.append(error)
            return None

    def _attributes(self, store: Store) -> None:
        same(attributes_of(store), self.contents.attributes, "attributes")

    def _descriptions(self, store: Store) -> dict[int, RowInfo]:
        described = {info.row: info for info in store.trusted_rows()}
        for row, info in described.items():
            if info not in self.contents.rows or info.row != row or store.info(row) != info:
                raise Mismatch(f"row {row} has the wrong description {info}")
            if not store.has(info.id) or store.row_of(info.id) != row:
                raise Mismatch(f"{info.id} is not found in row {row}")
        table = self._try(lambda: store.table)
        if table is not None and [info.row for info in table] != list(range(store.n_rows)):
            raise Mismatch(f"the table has the rows {[info.row for info in table]}")
        return described

    def _samples(self, store: Store) -> dict[int, RowInfo]:
        described = self._descriptions(store)
        rows = range(store.n_rows)
        good, bad = self._try(lambda: store.try_read_samples(rows)) or ([], [])
        unread = set(rows) - {store.row_of(sample.id) for sample in good}
        if good and {damaged.row for damaged in bad} != unread:
            raise Mismatch(f"rows {sorted(unread)} are missing, but {bad} are reported")
        for sample in good:
            same_sample(sample, self.contents.rows[described[store.row_of(sample.id)]])
        self.bad_samples = unread
        read = self._try(lambda: store.read_samples(rows))
        if (read is not None) is bool(unread):
            raise Mismatch(f"rows {sorted(unread)} cannot be read, but reading all {'succeeds' if read else 'fails'}")
        damaged = self._try(store.damaged)
        n_bytes = self._try(store.file_bytes)
        if not damaged and damaged is not None and n_bytes not in (None, self._sample_bytes(described)):
            raise Mismatch(f"the size of the samples is given as {n_bytes} bytes, not {self.contents.sample_bytes}")
        return described

    def _sample_bytes(self, described: Mapping[int, RowInfo]) -> int | None:
        """Their size; None if they come from another version of the store."""
        current = list(described.values()) == list(self.contents.rows)[: len(described)]
        return self.contents.sample_bytes if current else None

    def _keys(self, store: Store) -> None:
        keys = self._try(store.keys)
        if keys is None:
            return
        for key in keys:
            self._key(store, key)
        for gone in set(self.contents.keys) - {key.hash for key in keys}:
            if self._try(lambda gone=gone: store.find(dict(self.contents.keys[gone].fields))) is not None:
                raise Mismatch(f"{gone} is missing, but found")

    def _key(self, store: Store, key: Key) -> None:
        if self.contents.keys.get(key.hash) != key:
            raise Mismatch(f"unknown key {key}")
        recorded = self._try(lambda: store.recorded(key))
        if recorded is not None:
            same(recorded, self.contents.recorded[key.hash], "the record of a key")
        views = self._try(lambda: store.views(key)) or ()
        if not {(key.hash, view) for view in views} <= set(self.contents.described):
            raise Mismatch(f"{key.hash} has the unknown views {views}")
        found = self._try(lambda: store.find(dict(key.fields)))
        if found not in (None, key):
            raise Mismatch(f"looked for {key}, found {found}")

    def _embeddings(self, store: Store, group: Group, described: Mapping[int, RowInfo]) -> None:
        key, view = group
        embeddings = store.embeddings(self.contents.keys[key], view)
        rows = list(range(store.n_rows))
        found = self._try(lambda: embeddings.described)
        if found:
            same(found, self.contents.described[group], "the description of a view")
        there = self._try(embeddings.embedded_rows)
        missing = self._try(embeddings.missing)
        by_size = self._try(lambda: embeddings.missing(sizes=True))
        values, bad = self._read_rows(embeddings, rows)
        self.bad_embeddings[group] = set(rows) if values is None else {damaged.row for damaged in bad}
        good = set(rows) - self.bad_embeddings[group]
        for row in good:
            self._right_embedding(group, described[row], values, row)
        if there is not None and not good <= {info.row for info in there}:
            raise Mismatch(f"rows {sorted(good)} of {group} can be read, but {there} are reported")
        if missing is not None and (good & set(missing) or not set(missing) <= set(by_size or missing)):
            raise Mismatch(
                f"rows {sorted(good)} of {group} can be read, but {missing} and {by_size} are reported as missing"
            )
        self._sizes(embeddings, group, there, by_size)

    def _read_rows(self, embeddings: Embeddings, rows: list[int]) -> tuple[Any, list[Any]]:
        values, bad = self._try(lambda: embeddings.try_read(rows)) or (None, [])
        if values is None:
            return None, []
        bad_rows = {damaged.row for damaged in bad}
        for damaged in bad:
            if values[damaged.row].any() or (damaged.id and f"({damaged.id})" not in str(damaged)):
                raise Mismatch(f"a damaged row is not named or has values: {damaged}")
        good = [row for row in rows if row not in bad_rows][-1:]
        for read in (embeddings.read, embeddings.read_stored, embeddings.read_with_images):
            if good and self._try(lambda read=read: read(good)) is None:
                raise Mismatch(f"row {good} can be read, but not by {read}")
            if bad_rows and self._try(lambda read=read: read([*good, max(bad_rows)])) is not None:
                raise Mismatch(f"row {max(bad_rows)} is bad, and read by {read}")
        return values, bad

    def _right_embedding(self, group: Group, info: RowInfo, values: Any, row: int) -> None:
        expected = self.contents.embeddings.get((*group, info.image_digest))
        if expected is None or not np.array_equal(values[row], expected[0]):
            raise Mismatch(f"row {row} of {group} has a wrong value")

    def _sizes(self, embeddings: Embeddings, group: Group, there: Any, by_size: list[int] | None) -> None:
        sizes = self._try(embeddings.file_bytes)
        if sizes is None or there is None:
            return
        if sizes[0] != len(there):
            raise Mismatch(f"{sizes[0]} embeddings are counted, but {len(there)} exist")
        is_complete = sizes[0] == self.contents.sizes[group][0] and not by_size
        if is_complete and sizes != self.contents.sizes[group]:
            raise Mismatch(f"{group} has the size {sizes}, expected {self.contents.sizes[group]}")

    def _verification(self) -> None:
        found = self._try(lambda: verify(self.location, clear=False))
        if found is None:
            return
        reported = {(finding.what, finding.bad.row) for finding in found.findings}
        unread = {("samples", row) for row in self.bad_samples}
        if not unread <= reported:
            raise Mismatch(f"verify does not report {sorted(unread - reported)}")


def same(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise Mismatch(f"{what}: {found}, expected {expected}")


def same_arrays(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def same_sample(found: SampleRow, expected: SampleRow) -> None:
    for name in ("id", "group", "stratum", "mpp", "size", "image_digest", "mask_digest"):
        same(getattr(found, name), getattr(expected, name), name)
    for name in PIXELS:
        if not np.array_equal(getattr(found, name), getattr(expected, name)):
            raise Mismatch(f"{name} of {found.id} is wrong")


@pytest.fixture
def store_reader() -> type[StoreReader]:
    return StoreReader


@pytest.fixture
def through_zarr() -> Callable[[], AbstractContextManager[None]]:
    """A context in which local stores are read through zarr, like those on an object store."""

    @contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nucseg_cache.reading.ChunkFiles.of", lambda array: None)
            yield

    return context
