"""What a run is made from: the store, the embeddings that guide it, and the digest of every image and mask."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from nucseg.data.files import some
from nucseg.data.splits import Split
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.runs.digests import code_digest, configuration_digest, split_digest
from nucseg_pipeline.runs.selection import used_ids

SHOWN = 8
"""Digits of a digest that are shown."""

MPP_SPREAD = 1.05
"""Resolutions that are no further apart than this count as one."""

LIBRARIES = ("nucseg", "torch", "numpy", "zarr", "monai", "accelerate")


@dataclass(frozen=True)
class RunProvenance:
    """What a run was made from, as inputs.json holds it."""

    store: str
    """Location of the store."""
    dataset: str
    source: str
    """Where the data set lay when it was embedded."""
    preparation: Mapping[str, str]
    embedding: Mapping[str, str]
    """The fields of the embeddings' key; empty without guidance."""
    embedding_hash: str
    samples: Mapping[str, Sequence[str]]
    """id -> hexadecimal digests of the image's and of the masks' file content, for all rows of the split."""
    versions: Mapping[str, str]
    views: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Exact views that were read beside the images as they are -> how their images were made."""
    learned_from: Sequence[str] = ()
    """Ids of the training images from whose exact views the replay was learned."""
    split: str = ""
    """Digest of split.json; like those below empty in the first runs of this format."""
    configuration: str = ""
    """Digest of config.toml but for what says where and how long the run runs."""
    code: str = ""
    """Digest of nucseg's own source files."""
    native_px: int = 0
    """Longest side of the native training images, their median; 0 in runs that did not record it."""
    mpp: float = 0.0
    """Microns a pixel of the native training images; 0 where that is not known, or is not the same for all."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of what decides the result: not of places or versions."""
        told: tuple[object, ...] = (self.dataset, dict(self.preparation), self.embedding_hash, dict(self.samples))
        told += ({name: dict(made) for name, made in self.views.items()},) if self.views else ()
        told += (list(self.learned_from),) if self.learned_from else ()
        told += ({"split": self.split, "configuration": self.configuration},) if self.split else ()
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def changes(self, now: RunProvenance, ids: Sequence[str]) -> list[str]:
        """What differs now from what these inputs record, one line each; images are compared for `ids` only."""
        lines = [
            f"{name}: recorded {dict(then)}, now {dict(found)}"
            for name, then, found in (
                ("preparation", self.preparation, now.preparation),
                ("embedding", self.embedding, now.embedding),
                ("views", self.views, now.views),
            )
            if dict(then) != dict(found)
        ]
        changed = [one for one in ids if list(self.samples.get(one, ())) != list(now.samples.get(one, ()))]
        return lines + ([f"image or masks of {some(changed)}"] if changed else [])

    def made_by_others(self, now: RunProvenance) -> list[str]:
        """What trains now and did not when these inputs were recorded, one line each."""
        lines = [
            f"{name} {then} then, {now.versions[name]} now"
            for name, then in self.versions.items()
            if now.versions.get(name, then) != then
        ]
        if self.code and self.code != now.code:
            lines.append(f"nucseg's code {self.code[:SHOWN]} then, {now.code[:SHOWN]} now")
        return lines

    def to_json(self) -> str:
        """The content of inputs.json."""
        return json.dumps(asdict(self), indent=1)


def record_provenance(
    store: Store,
    key: Key | None,
    parts: Split,
    views: Mapping[str, Embeddings] | None = None,
    learned_from: Sequence[str] = (),
    config: TrainConfig | None = None,
) -> RunProvenance:
    """Record what a run on these parts and views is made from; reads no image."""
    digests = {info.id: (info.image_digest.hex(), info.mask_digest.hex()) for info in store.table if info.present}
    return RunProvenance(
        store=store.location if "://" in store.location else str(Path(store.location).absolute()),
        dataset=store.dataset,
        source=store.source,
        preparation=dict(store.preparation),
        embedding={} if key is None else dict(key.fields),
        embedding_hash="" if key is None else key.hash,
        samples={one: list(digests.get(one, ())) for one in used_ids(parts)},
        views={name: view.described for name, view in (views or {}).items()},
        learned_from=list(learned_from),
        split=split_digest(parts),
        configuration="" if config is None else configuration_digest(config),
        code=code_digest(),
        native_px=native_px(store, parts.train),
        mpp=native_mpp(store, parts.train),
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
    )


def native_px(store: Store, ids: Sequence[str]) -> int:
    """The median of the longest sides of some native images, in pixels; 0 where there is none."""
    asked = set(ids)
    sides = sorted(max(info.size) for info in store.table if info.id in asked)
    return sides[len(sides) // 2] if sides else 0


def native_mpp(store: Store, ids: Sequence[str]) -> float:
    """Microns a pixel of some native images; 0 where one's are not known, or they are not within 5 % of one another."""
    asked = set(ids)
    said = sorted(info.mpp or 0.0 for info in store.table if info.id in asked)
    return said[len(said) // 2] if said and said[-1] <= MPP_SPREAD * said[0] else 0.0
