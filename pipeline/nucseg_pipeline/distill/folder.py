"""The folder of one distillation: which files it holds, who may write it, and whether it can be gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from nucseg.errors import ConfigError
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.distill.trainer import EpochTold
from nucseg_pipeline.files.atomic import write_whole
from nucseg_pipeline.files.locks import locked, missing_folders, remove_empty
from nucseg_pipeline.runs.folder import table_text

FREE_FIELDS = frozenset({"cache", "teacher", "weights", "precision", "format", "device", "threads", "out"})
"""Fields in which a distillation that goes on may differ: whether the embeddings are the same is asked of their key."""

FORMAT = "nucseg-distillation-1"
"""In inputs.json."""

STUDENT = "student.safetensors"

Learned = Mapping[str, Mapping[str, Any]]
"""Data set -> what is learned from it."""


@dataclass(frozen=True)
class StudentFolder:
    """Reads and writes the files of a distillation; every file is either whole or not there.

    config.toml           the resolved configuration, itself a recipe
    inputs.json           what is learned from, by data set, and the digest of the configuration
    epochs.csv            one line an epoch
    last.pt               checkpoint after the last finished epoch
    best.pt               network of the epoch with the least validation error
    student.safetensors   the encoder, for `--encoder student:FILE`
    fidelity.json         how well held-out images are imitated
    card.md               model card, with what only its maker knows left to fill in
    """

    path: Path

    def file(self, name: str) -> Path:
        """One of the files above."""
        return self.path / name

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other distillations out; empty ones that were made are taken away again."""
        made = missing_folders(self.path)
        busy = ConfigError(
            f"Another process is distilling in {self.path}. Wait for it, or choose another folder with --out."
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remove_empty(made)
            raise ConfigError(
                f"The folder {self.path} cannot be made: {error.strerror}. Choose another with --out."
            ) from None
        with locked(self.path, busy):
            try:
                yield
            finally:
                remove_empty(made)  # while nobody else can hold it

    def recorded_views(self) -> dict[str, list[str]] | None:
        """Data set -> the views that are learned from; None where nothing was begun.

        Raises ConfigError where something else is in the folder, or what is recorded in it cannot be read.
        """
        if self._is_new():
            return None
        return {name: list(told["views"]) for name, told in self._recorded()["datasets"].items()}

    def start(self, config: DistillConfig, learned: Learned) -> None:
        """Set the folder up, or find that it was set up for the same.

        Raises ConfigError where it was set up with other options or for other images.
        """
        asked = _inputs(config, learned)
        if self._is_new():
            write_whole(self.file("config.toml"), to_toml(config, without=("out",)).encode())
            write_whole(self.file("inputs.json"), json.dumps(asked, indent=1).encode())
            return
        recorded = self._recorded()
        if recorded["configuration"] != asked["configuration"]:
            raise ConfigError(
                f"{self.path} holds a distillation with other options: see config.toml in it. Go on with it as it was "
                f"(--recipe {self.path}/config.toml --out {self.path}), or distill anew in another folder (--out)."
            )
        changed = [name for name in learned if recorded["datasets"].get(name) != asked["datasets"][name]]
        if changed:
            raise ConfigError(
                f"The images, embeddings or views that {self.path} is learned from have changed since it was begun: "
                f"those of {', '.join(changed)}. Bring them back as they were, or distill anew in another folder "
                "(--out)."
            )

    def finished(self) -> dict[str, Any] | None:
        """The content of fidelity.json, where the student beside it is the one that it is about; else None."""
        try:
            content = json.loads(self.file("fidelity.json").read_bytes())
            digest = xxhash.xxh128_hexdigest(self.file(STUDENT).read_bytes())
            return content if content["weights"] == digest else None
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            return None

    def write_epochs(self, history: Sequence[EpochTold]) -> None:
        """Write epochs.csv anew."""
        write_whole(self.file("epochs.csv"), table_text([asdict(row) for row in history]).encode())

    def _is_new(self) -> bool:
        """Whether nothing was begun in it: it is empty, or a distillation was killed while it set it up."""
        others = [entry.name for entry in self.path.iterdir() if not entry.name.endswith(".part")]
        if not others or others == ["config.toml"]:
            return True
        if "inputs.json" not in others:
            raise ConfigError(
                f"{self.path} holds something that is no distillation: {sorted(others)[0]}. Choose another folder with "
                "--out."
            )
        return False

    def _recorded(self) -> dict[str, Any]:
        try:
            content = json.loads(self.file("inputs.json").read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{self.file('inputs.json')} cannot be read: {error}. Bring it back from a copy, or distill anew in "
                "another folder (--out)."
            ) from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ConfigError(
                f"{self.file('inputs.json')} is not of a distillation (format {FORMAT}), as of a run of `nucseg train` "
                "or another version. Choose another folder with --out."
            )
        return content


def fingerprint(config: DistillConfig, learned: Learned) -> str:
    """SHA-256, hexadecimal, of all that decides what comes of a distillation; its checkpoints go by it."""
    return _digest(_inputs(config, learned))


def configuration_digest(config: DistillConfig) -> str:
    """SHA-256, hexadecimal, of the options that decide what comes of a distillation."""
    table = tomllib.loads(to_toml(config))["distill"]
    return _digest({name: value for name, value in table.items() if name not in FREE_FIELDS})


def _inputs(config: DistillConfig, learned: Learned) -> dict[str, Any]:
    datasets = {name: dict(told) for name, told in learned.items()}
    return {"format": FORMAT, "configuration": configuration_digest(config), "datasets": datasets}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
