"""A finished run, opened for reports and predictions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nucseg.data.files import some
from nucseg.data.splits import Split
from nucseg.encoders import named_file
from nucseg.errors import ConfigError, suggestion
from nucseg.models import SegmentationModel
from nucseg.nuclei.instances import InstanceRule
from nucseg.paths import as_path
from nucseg_cache import Key, Store, StoreNotFound
from nucseg_pipeline.config import TrainConfig, store_location
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.modelling.inference import Prediction, predict
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.provenance import RunProvenance, sample_digests
from nucseg_pipeline.runs.selection import embed_command, open_embeddings, used_ids

__all__ = ["Prediction", "Run", "TrainedRun", "encoder_files"]


def encoder_files(config: TrainConfig) -> list[Path]:
    """The file of a run's encoder as its configuration names it; empty where it names none."""
    return [Path(file) for file in (named_file(config.encoder), config.weights) if file]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run without its store, which need not exist any more."""

    folder: RunFolder
    config: TrainConfig
    split: Split
    inputs: RunProvenance
    rule: InstanceRule
    """How probabilities become nuclei, chosen on the validation part."""

    @classmethod
    def opened(cls, path: Path | str) -> TrainedRun:
        """Open the finished run in a folder.

        Raises:
            ConfigError: no run there, an unfinished or a damaged one.
        """
        folder = _finished(as_path(path))
        folder.check_finished()
        config, parts, inputs = folder.config(), folder.split(), folder.inputs()
        unknown = set(used_ids(parts)) - set(inputs.samples)
        if unknown:
            raise ConfigError(
                f"split.json and inputs.json in {path} do not belong together: inputs.json records no digests of "
                f"{some(sorted(unknown))}. Bring the files back from a copy, or train again in another folder (--run)."
            )
        return TrainedRun(folder, config, parts, inputs, folder.rule())

    @property
    def name(self) -> str:
        """Name of the run, that is of its folder."""
        return self.folder.name

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of epochs.csv."""
        return self.folder.history()

    def network(self) -> SegmentationModel:
        """Load the best network, on the CPU and in evaluation mode.

        Raises:
            ConfigError: the checkpoint cannot be read.
        """
        try:
            model = build_network(self.config)
        except ConfigError as error:
            raise ConfigError(f"{self.folder.file('config.toml')} describes no valid network: {error}") from None
        file, best = self.folder.file("best.pt"), self.folder.load_checkpoint("best.pt")
        try:
            model.load_state_dict(best["model"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(
                f"The checkpoint {file} is of another network than config.toml next to it says: "
                f"{str(error).splitlines()[0]} Bring the right files back from a copy, or train again in another "
                "folder (--run)."
            ) from None
        if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
            raise ConfigError(
                f"The checkpoint {file} has weights that are not finite. Bring the file back from a copy, or "
                "train again in another folder (--run)."
            )
        return model.eval()


@dataclass(frozen=True, eq=False)
class Run(TrainedRun):
    """A trained run together with the store it was trained from.

    Made by `Run.open`, which checks that the images of the test part have not changed since the training.
    """

    store: Store
    changed_since: tuple[str, ...]
    """Training and validation images that have changed in the store since the training."""

    @classmethod
    def open(cls, path: Path | str, *, cache: str | Path | None = None) -> Run:
        """Open the run in a folder.

        Args:
            path: The run's folder.
            cache: Where its store may be now; without one there, and with None, the place it was trained from.

        Raises:
            ConfigError: no run there, an unfinished one, a damaged one, or its test images, or the way they are
                prepared, have changed since.
            nucseg_cache.CacheError: the store is gone, or damaged.
        """
        trained = TrainedRun.opened(path)
        folder, config, parts, inputs = trained.folder, trained.config, trained.split, trained.inputs
        store = _store(inputs, config, None if cache is None else str(cache))
        if dict(store.preparation) != dict(inputs.preparation):
            raise ConfigError(
                f"{store.location} is prepared as {dict(store.preparation)}, but {folder.name} was trained on "
                f"images prepared as {dict(inputs.preparation)}. Name the cache that has them (--cache), or train "
                "again."
            )
        now = sample_digests(store, used_ids(parts))
        changed = inputs.changed_samples(now, parts.test)
        if changed:
            key = Key(inputs.embedding) if inputs.embedding else None
            raise ConfigError(
                f"{len(changed)} test images of {store.location} are not what they were when {folder.name} was trained "
                f"(image or masks changed, or vanished): {some(changed)}. Put them back and run "
                f"`{embed_command(store, key, config)}`, or train again."
            )
        changed_since = tuple(inputs.changed_samples(now, (*parts.train, *parts.validation)))
        return cls(folder, config, parts, inputs, trained.rule, store, changed_since)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the run was made from and with, for people to read; without the digests of single images."""
        inputs, status = self.inputs, self.folder.status()
        recorded = self.store.recorded(Key(inputs.embedding)) if inputs.embedding else {}
        return {
            "dataset": inputs.dataset,
            "source": inputs.source,
            "store": inputs.store,
            "preparation": dict(inputs.preparation),
            "embedding": dict(inputs.embedding),
            "embedding_made_by": recorded,
            "encoder_note": recorded.get("note", ""),
            "inputs_digest": inputs.fingerprint,
            "split_digest": inputs.split,
            "configuration_digest": inputs.configuration,
            "code_digest": inputs.code,
            "versions": dict(inputs.versions),
            "changed_while_training": self.folder.changed(),
            "changed_since": list(self.changed_since),
            "best_epoch": status["best_epoch"],
            "validation_dice": status["validation_dice"],
        }

    def rows(self, ids: Sequence[str], *, store: Store | None = None) -> EmbeddingDataset:
        """Open what a prediction reads: some ids of a store, with the embeddings that guide this run.

        Raises:
            ConfigError: an id is not in the store, or has no embedding.
            nucseg_cache.CacheError: the store has no embeddings of the run's encoder.
        """
        store = self.store if store is None else store
        key = store.find(self.inputs.embedding) if self.inputs.embedding else None
        return EmbeddingDataset(store, open_embeddings(store, key, ids, self.config), ids)

    @cached_property
    def model(self) -> SegmentationModel:
        """The best network, loaded once and then kept, on the device that it was last used on."""
        return self.network()

    def predict(self, ids: Sequence[str], *, store: Store | None = None, device: str = "auto") -> Iterator[Prediction]:
        """Probability maps of the best network for some ids of a store, in their order, without augmentation.

        Args:
            ids: which images.
            store: where they are; None takes the store that the run was trained from.
            device: auto, cpu, mps, cuda or cuda:N.

        Raises:
            ConfigError: the checkpoint cannot be read, or an id has no embedding.
            nucseg_cache.CacheError: the store has no embeddings of the run's encoder, or a row is damaged.
        """
        rows = self.rows(ids, store=store)
        chosen = choose_device(device)
        return predict(self.model.to(chosen), rows, device=chosen)


def _store(inputs: RunProvenance, config: TrainConfig, cache: str | None) -> Store:
    """The store in the given cache; if it is not there, that of the training."""
    if cache is None:
        return Store.open(inputs.store)
    location = store_location(cache, config.dataset)
    try:
        return Store.open(location)
    except StoreNotFound:
        try:
            return Store.open(inputs.store)
        except StoreNotFound:
            raise ConfigError(
                f"The store of {config.dataset} is neither at {location} nor, where it was trained from, at "
                f"{inputs.store}. Name the cache that has it with --cache."
            ) from None


def _finished(path: Path) -> RunFolder:
    folder = RunFolder(path)
    if not path.is_dir():
        near = suggestion(path.name, _runs_in(path.parent))
        raise ConfigError(
            f"There is no run at {path}: no such folder. {near}{' ' if near else ''}`nucseg train` makes runs, by "
            "default in ./runs."
        )
    if not folder.file("run.json").exists() and not folder.was_stopped_at_once:
        inside = _runs_in(path)
        example = f" It holds runs: name one of them, as in {path / inside[0]}." if inside else ""
        raise ConfigError(
            f"{path} is not a run: it has no run.json.{example or ' Name the folder that `nucseg train` wrote.'}"
        )
    folder.config()  # of a run, not of a distillation
    if folder.was_stopped_at_once or folder.status()["status"] != "finished":
        command = ["nucseg", "train", "--recipe", str(folder.file("config.toml")), "--run", str(path), "--resume"]
        raise ConfigError(f"The run in {path} is not finished. Finish it with `{shlex.join(command)}`.")
    return folder


def _runs_in(folder: Path) -> list[str]:
    """Sorted names of the runs in a folder."""
    return sorted(file.parent.name for file in folder.glob("*/run.json"))
