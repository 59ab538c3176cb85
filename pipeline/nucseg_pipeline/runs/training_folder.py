"""What the folders of `train` and `distill` have in common: lock, state, configuration, checkpoints, history, seal."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from nucseg.errors import ConfigError, RunBusy, TrainingError
from nucseg_pipeline.config import DistillConfig, TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve, to_toml
from nucseg_pipeline.files.atomic import is_temporary, write_whole
from nucseg_pipeline.files.locks import locked
from nucseg_pipeline.runs.checkpoint import load_checkpoint, save_checkpoint
from nucseg_pipeline.runs.digests import configuration_digest, free_fields, json_digest
from nucseg_pipeline.runs.history import EpochRecord, history_csv, read_history
from nucseg_pipeline.runs.json_schema import misfit

FORMAT = 1
"""Number of the format of a training's folder."""

State = Literal["new", "unfinished", "finished"]

Config = TypeVar("Config", bound=TrainConfig | DistillConfig)


class Provenance(Protocol):
    """What inputs.json holds."""

    @property
    def configuration(self) -> str:
        """Digest of config.toml."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the result; checkpoints carry it."""


@dataclass(frozen=True)
class TrainingFolder(ABC, Generic[Config]):
    """Reads and writes the files of a training; every file is either complete or absent.

    config.toml     the resolved configuration, itself a recipe
    inputs.json     what the training is made from
    run.json        status: training, then finished, with the digests of the files in SEALED
    epochs.csv      one line an epoch
    last.pt         checkpoint of the last finished epoch
    best.pt         network of the best epoch

    A training that is killed may leave `.NAME.part`, a file that it was writing; a resumed one overwrites it.
    """

    path: Path

    CONFIG: ClassVar[type[Any]]
    COMMAND: ClassVar[str]
    """The command that writes the folder; also the table of its recipe."""
    NOUN: ClassVar[str]
    """What messages call the content of the folder."""
    OPTION: ClassVar[str]
    """The option that names another folder."""
    RESUME: ClassVar[str]
    """How to resume, in words."""
    NOT_RECORDED: ClassVar[tuple[str, ...]]
    """Fields that config.toml leaves out."""
    SEALED: ClassVar[tuple[str, ...]]
    """Files whose digests run.json records, as far as the training makes them."""
    FINISHED: ClassVar[Mapping[str, type]]
    """Fields of a finished run.json."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    def file(self, name: str) -> Path:
        """One of the files above."""
        return self.path / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder and keep other trainings out of it; removed again if nothing is written.

        Raises:
            RunBusy: another process has the folder.
            ConfigError: it cannot be created.
        """
        busy = RunBusy(
            f"Another process is {self.COMMAND}ing in {self.path}. Wait for it, or choose another folder with "
            f"{self.OPTION}."
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path, busy))
            except OSError as error:
                raise ConfigError(
                    f"The folder {self.path} cannot be made: {error.strerror}. Choose another with {self.OPTION}."
                ) from None
            yield

    def is_new(self) -> bool:
        """Whether nothing has been trained in the folder; ConfigError where something else is in it."""
        files = self.path.iterdir() if self.path.is_dir() else ()
        names = sorted(path.name for path in files if not is_temporary(path))
        if names and "config.toml" not in names:
            raise self._foreign(names[0])
        return not names or self.was_stopped_at_once

    @property
    def was_stopped_at_once(self) -> bool:
        """Whether a training was killed while it set the folder up: nothing was trained."""
        exists = {name: self.file(name).exists() for name in ("config.toml", "run.json", "last.pt")}
        return exists == {"config.toml": True, "run.json": False, "last.pt": False}

    def state(self, config: Config) -> State:
        """What the folder holds for a training with this configuration.

        Raises:
            ConfigError: it holds something else, or was started with another configuration.
        """
        if self.is_new():
            return "new"
        recorded = self.config()
        self._check_same(recorded, config)
        finished = self.status()["status"] == "finished" and config.epochs == recorded.epochs
        return "finished" if finished else "unfinished"

    def _check_same(self, recorded: Config, asked: Config) -> None:
        names = [field.name for field in fields(asked) if field.name not in free_fields(asked)]
        differing = [name for name in names if getattr(recorded, name) != getattr(asked, name)]
        if not differing or (differing == ["epochs"] and self._may_continue(recorded, asked)):
            return
        lines = [f"  {name}: {getattr(recorded, name)}, asked for {getattr(asked, name)}" for name in differing]
        resume = " --resume" if hasattr(asked, "resume") else ""
        raise ConfigError(
            "\n".join([f"The {self.NOUN} in {self.path} was started with another configuration:", *lines])
            + f"\nResume it as it was (--recipe {self.file('config.toml')} {self.OPTION} {self.path}{resume}), or "
            f"{self.COMMAND} again in another folder ({self.OPTION})."
        )

    def _may_continue(self, recorded: Config, asked: Config) -> bool:
        """Whether a training that differs in its epochs alone is the same one, continued."""
        return False

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file; TrainingError where that is not possible."""
        with self._writing():
            write_whole(self.file(name), content.encode() if isinstance(content, str) else content)

    def save_checkpoint(self, name: str, content: Mapping[str, Any], fingerprint: str) -> None:
        """Write last.pt or best.pt; TrainingError where that is not possible."""
        with self._writing():
            save_checkpoint(self.file(name), content, fingerprint)

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """Read last.pt or best.pt; see `nucseg_pipeline.runs.checkpoint.load_checkpoint`."""
        return load_checkpoint(self.file(name), self.inputs().fingerprint)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{error.filename} cannot be written: {error.strerror}. Free some space or fix the permissions, then "
                f"{self.RESUME}: the last checkpoint is complete."
            ) from error

    def write_config(self, config: Config) -> None:
        """Write config.toml."""
        self.write("config.toml", to_toml(config, without=self.NOT_RECORDED))

    def write_epochs(self, history: Sequence[EpochRecord]) -> None:
        """Write epochs.csv."""
        self.write("epochs.csv", history_csv(history))

    def write_status(self, status: str, **more: object) -> None:
        """Write run.json with its own digest."""
        content = {"format": FORMAT, "status": status, **more}
        self.write("run.json", json.dumps({**content, "digest": json_digest(content)}, indent=1))

    def file_digests(self) -> dict[str, str]:
        """SHA-256, hexadecimal, of the files in SEALED as they are now."""
        files = (self.file(name) for name in self.SEALED)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}

    def finish(self, **more: object) -> None:
        """Mark the training as finished, and record the digests of its files."""
        self.write_status("finished", **more, files=self.file_digests())

    def check_unedited(self) -> None:
        """Raise ConfigError where a file that the training was started with has changed since."""
        if configuration_digest(self.config()) != self.inputs().configuration:
            raise self._edited("config.toml")

    def check_finished(self) -> None:
        """As `check_unedited`, and for the files in SEALED of a finished training."""
        self.check_unedited()
        recorded, found = self.status()["files"], self.file_digests()
        for name in sorted({*recorded, *found}):
            if name not in found:
                raise self.damaged(name, "it is gone")
            if recorded.get(name) != found[name]:
                raise self.damaged(name, "its digest differs from the one in run.json")

    def config(self) -> Config:
        """The configuration that the training was started with."""
        try:
            recipe = load_recipe(self.file("config.toml"), self.COMMAND)
            location = {self.OPTION.lstrip("-"): self.path}
            config: Config | None = resolve(self.CONFIG, recipe, location) if recipe else None
        except ConfigError as error:
            raise self.damaged("config.toml", error) from None
        if config is None:
            raise self._foreign(f"config.toml has no table [{self.COMMAND}]")
        return config

    @abstractmethod
    def inputs(self) -> Provenance:
        """What the training was made from."""

    def status(self) -> dict[str, Any]:
        """The content of run.json."""
        content = self.read_json("run.json")
        if content.get("format") != FORMAT or "status" not in content:
            raise ConfigError(
                f"{self.path} is a {self.NOUN} of format {content.get('format')!r}, this version reads {FORMAT}. "
                f"Read it with the version that wrote it, or {self.COMMAND} again in another folder ({self.OPTION})."
            )
        if content.pop("digest", None) != json_digest(content):
            raise self.damaged("run.json", "it was edited: its digest does not match its content")
        expected = {**self.FINISHED, "files": dict} if content["status"] == "finished" else {}
        for name, kind in expected.items():
            if type(content.get(name)) is not kind:
                raise self.damaged("run.json", f"{name} is {content.get(name)!r}")
        return content

    def history(self) -> list[dict[str, float]]:
        """The rows of epochs.csv."""
        try:
            return read_history(self.file("epochs.csv"))
        except (OSError, ValueError) as error:
            raise self.damaged("epochs.csv", error) from None

    def read_json(self, name: str, kind: type[Any] | None = None) -> dict[str, Any]:
        """A JSON object, with the fields of a dataclass `kind` if one is given."""
        try:
            content = json.loads(self.file(name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self.damaged(name, error) from None
        if not isinstance(content, dict) or (kind and content.keys() != {field.name for field in fields(kind)}):
            raise self.damaged(name, "it does not hold what belongs there")
        if kind and (wrong := misfit(content, kind)):
            raise self.damaged(name, f"it does not hold what belongs there: {wrong}")
        return content

    def damaged(self, name: str, why: object) -> ConfigError:
        """The error of a file that cannot be used."""
        return ConfigError(
            f"{self.file(name)} cannot be read: {str(why).rstrip('.')}. Bring the file back from a copy, or delete the "
            f"folder of the {self.NOUN} and {self.COMMAND} again."
        )

    def _foreign(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path} holds something that is not a {self.NOUN}: {what}. Choose another folder with {self.OPTION}."
        )

    def _edited(self, name: str) -> ConfigError:
        return self.damaged(name, f"it was changed after the {self.NOUN} was started, says inputs.json next to it")
