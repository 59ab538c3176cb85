"""What a run is made from: the store, the embeddings that guide it, and the digest of every image and mask."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from nucseg.data.files import some
from nucseg_cache import Embeddings, Store
from nucseg_pipeline.runs.digests import code_digest, configuration_digest, json_digest, split_digest
from nucseg_pipeline.runs.selection import Selection, used_ids

SHOWN = 8
"""Digits of a digest in messages."""

MPP_SPREAD = 1.05
"""Resolutions that differ by no more than this factor count as one."""

LIBRARIES = ("nucseg", "torch", "numpy", "zarr", "monai", "accelerate")


@dataclass(frozen=True, kw_only=True)
class RunProvenance:
    """What a run was made from, as inputs.json holds it."""

    store: str
    """Location of the store."""
    dataset: str
    source: str
    """Where the data set was when it was embedded."""
    preparation: Mapping[str, str]
    embedding: Mapping[str, str]
    """The fields of the embeddings' key; empty without guidance."""
    embedding_hash: str
    samples: Mapping[str, Sequence[str]]
    """id -> hexadecimal digests of the image's and of the masks' file content, for all rows of the split."""
    versions: Mapping[str, str]
    views: Mapping[str, Mapping[str, str]]
    """Views that were read besides the images as they are -> how their images were made."""
    learned_from: Sequence[str]
    """Ids of the training images from whose exact views the mixing of channels was learned."""
    split: str
    """Digest of split.json."""
    configuration: str
    """Digest of the fields of config.toml in which a resumed run may not differ."""
    code: str
    """Digest of nucseg's own source files."""
    native_px: int
    """Longest side of the native training images, their median."""
    mpp: float
    """Microns a pixel of the native training images; 0 where that is not known, or is not the same for all."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the result; locations and versions do not."""
        names = (
            "dataset", "preparation", "embedding_hash", "samples", "views", "learned_from", "split", "configuration",
        )  # fmt: skip
        content = asdict(self)
        return json_digest({name: content[name] for name in names})

    def changes(self, now: RunProvenance, ids: Sequence[str]) -> list[str]:
        """What differs now from what is recorded, one line each; images are compared for `ids` only."""
        lines = [
            f"{name}: recorded {dict(then)}, now {dict(found)}"
            for name, then, found in (
                ("preparation", self.preparation, now.preparation),
                ("embedding", self.embedding, now.embedding),
                ("views", self.views, now.views),
            )
            if dict(then) != dict(found)
        ]
        changed = self.changed_samples(now.samples, ids)
        return lines + ([f"image or masks of {some(changed)}"] if changed else [])

    def changed_samples(self, now: Mapping[str, Sequence[str]], ids: Sequence[str]) -> list[str]:
        """Those of the ids whose image or masks have other digests than recorded, or none any more."""
        return [i for i in ids if list(self.samples.get(i, ())) != list(now.get(i, ()))]

    def changed_software(self, now: RunProvenance) -> list[str]:
        """Versions and code that differ now from what is recorded, one line each."""
        lines = [
            f"{name} {then} then, {now.versions[name]} now"
            for name, then in self.versions.items()
            if now.versions.get(name, then) != then
        ]
        if self.code != now.code:
            lines.append(f"nucseg's code {self.code[:SHOWN]} then, {now.code[:SHOWN]} now")
        return lines

    def to_json(self) -> str:
        """The content of inputs.json."""
        return json.dumps(asdict(self), indent=1)


def record_provenance(
    selection: Selection, views: Mapping[str, Embeddings], learned_from: Sequence[str]
) -> RunProvenance:
    """Record what a run on this selection and these views is made from; reads no image."""
    store, key, parts = selection.store, selection.key, selection.split
    return RunProvenance(
        store=store.location if "://" in store.location else str(Path(store.location).absolute()),
        dataset=store.dataset,
        source=store.source,
        preparation=dict(store.preparation),
        embedding={} if key is None else dict(key.fields),
        embedding_hash="" if key is None else key.hash,
        samples=sample_digests(store, used_ids(parts)),
        views={name: view.described for name, view in views.items()},
        learned_from=list(learned_from),
        split=split_digest(parts),
        configuration=configuration_digest(selection.config),
        code=code_digest(),
        native_px=native_px(store, parts.train),
        mpp=native_mpp(store, parts.train),
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
    )


def sample_digests(store: Store, ids: Sequence[str]) -> dict[str, list[str]]:
    """Id -> hexadecimal digests of the image's and of the masks' file; an empty list if the image has vanished."""
    digests = {info.id: [info.image_digest.hex(), info.mask_digest.hex()] for info in store.table if info.present}
    return {sample_id: digests.get(sample_id, []) for sample_id in ids}


def native_px(store: Store, ids: Sequence[str]) -> int:
    """The median of the longest sides of some native images, in pixels; 0 where there is none."""
    asked = set(ids)
    sides = sorted(max(info.size) for info in store.table if info.id in asked)
    return sides[len(sides) // 2] if sides else 0


def native_mpp(store: Store, ids: Sequence[str]) -> float:
    """Microns a pixel of some native images; 0 where one is not known, or they differ by more than 5 %."""
    asked = set(ids)
    values = sorted(info.mpp or 0.0 for info in store.table if info.id in asked)
    return values[len(values) // 2] if values and values[-1] <= MPP_SPREAD * values[0] else 0.0
