"""The folder of one run: which files it holds, who may write it, and whether it can be gone on with."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from nucseg.data.splits import Split
from nucseg.errors import ConfigError, RunBusy
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve, to_toml
from nucseg_pipeline.files.atomic import write_whole
from nucseg_pipeline.files.locks import missing_folders, remove_empty
from nucseg_pipeline.runs.digests import FREE_FIELDS, recipe_digest, split_digest
from nucseg_pipeline.runs.history import EpochRecord
from nucseg_pipeline.runs.json_schema import misfit
from nucseg_pipeline.runs.provenance import RunProvenance

FORMAT = 1
"""Number of the format of a run's folder."""

State = Literal["new", "unfinished", "finished"]

ADDED = frozenset({"views", "learned_from", "split", "configuration", "code", "native_px", "mpp"})
"""Fields of inputs.json that the first runs of this format did not have."""

VOUCHED = ("best.pt", "rule.json", "position.npy", "mixing.npy")
"""Files of a finished run whose digests run.json holds. Configuration, split and inputs are vouched for by inputs.json
and best.pt; epochs.csv, which holds wall times, by nothing."""


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of a run; every file is either whole or not there.

    config.toml     the resolved configuration, itself a recipe
    split.json      training, validation and test ids, protocol and notes
    inputs.json     store, key of the embeddings, digests of images, masks, split, configuration and code, versions
    run.json        status: training, then finished, with digests of the files that training makes
    position.npy    (256, 64, 64) float32, positional pattern of the training rows, where replay corrects for it
    mixing.npy      (8, 256, 256) float32, what a turn does to the channels, where replay learns it
    epochs.csv      one line an epoch
    last.pt         checkpoint after the last finished epoch
    best.pt         network of the epoch with the highest validation Dice
    rule.json       how a probability map becomes nuclei, chosen on the validation part
    tensorboard/    event files, where they were asked for

    Beside them a killed training leaves `.NAME.part`, a file that it was writing; the one that goes on writes over it.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    def file(self, name: str) -> Path:
        """One of the files above."""
        return self.path / name

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other trainings out of it; empty ones that were made are taken away again.

        The lock is the kernel's and ends with the process, however it ends.
        """
        made = missing_folders(self.path.parent)
        descriptor = self._locked()
        try:
            yield
        finally:
            remove_empty([self.path, *made])  # while nobody else can hold it
            os.close(descriptor)

    def _locked(self) -> int:
        """The descriptor of the folder, made and locked; no other training has it, and none takes it away."""
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise ConfigError(
                    f"The run's folder {self.path} cannot be made: {error.strerror}. Choose another with --run."
                ) from None
            try:
                _lock(descriptor, self.path)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # a training that ended took the folder away before it could be locked

    def state(self, config: TrainConfig) -> State:
        """What is in the folder, for a training with this configuration.

        Raises ConfigError where something else is in it, where a run is and resuming was not asked for, and where
        the run was started with another configuration.
        """
        if not self.path.is_dir() or not any(not _is_temporary(entry) for entry in self.path.iterdir()):
            return "new"
        if not self.file("config.toml").exists():
            raise ConfigError(f"{self.path} holds something that is not a run. Choose another folder with --run.")
        if self.was_stopped_at_once:
            return "new"
        if not config.resume:
            raise ConfigError(
                f"{self.path} holds a run already ({self.status()['status']}). Continue it with --resume, report it "
                "with `nucseg report`, or choose another folder with --run."
            )
        recorded = self.config()
        _refuse_differences(recorded, config, self.path)
        if self.status()["status"] == "finished" and config.epochs == recorded.epochs:
            return "finished"
        return "unfinished"

    @property
    def was_stopped_at_once(self) -> bool:
        """Whether a training was killed while it set the folder up: nothing was trained."""
        there = {name: self.file(name).exists() for name in ("config.toml", "run.json", "last.pt")}
        return there == {"config.toml": True, "run.json": False, "last.pt": False}

    def start(self, config: TrainConfig, parts: Split, inputs: RunProvenance) -> None:
        """Set the folder up; run.json comes last, so without it nothing has begun."""
        self.write_config(config)
        write_whole(self.file("split.json"), json.dumps(asdict(parts), indent=1).encode())
        write_whole(self.file("inputs.json"), inputs.to_json().encode())
        self.write_status("training")

    def write_config(self, config: TrainConfig) -> None:
        """Write config.toml, without what says where the run is and whether it was resumed."""
        write_whole(self.file("config.toml"), to_toml(config, without=("run", "resume")).encode())

    def write_status(self, status: str, **more: object) -> None:
        """Write run.json; what it says to have changed while the run was trained stays."""
        kept = {"changed": self.changed()} if self.file("run.json").exists() and "changed" not in more else {}
        content = {"format": FORMAT, "status": status, **{name: value for name, value in kept.items() if value}, **more}
        sealed = {**content, "digest": _digest(content)}
        write_whole(self.file("run.json"), json.dumps(sealed, indent=1).encode())

    def changed(self) -> list[str]:
        """What became other than it was while the run was trained: versions and code, each time it was resumed."""
        return list(self.status().get("changed", ()))

    def file_digests(self) -> dict[str, str]:
        """SHA-256, hexadecimal, of the files that a finished run's run.json vouches for, as they are now."""
        there = (self.file(name) for name in VOUCHED)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in there if file.exists()}

    def check_unedited(self) -> None:
        """Raise ConfigError where a file of the run is not the one that was written, by what inputs.json records."""
        inputs = self.inputs()
        recipe = load_recipe(self.file("config.toml"), "train")
        for name, recorded, found in (
            ("split.json", inputs.split, split_digest(self.split())),
            ("config.toml", inputs.configuration, recipe_digest(recipe)),
        ):
            if recorded and recorded != found:
                raise _damaged(self.file(name), "it was changed after the run was started, says inputs.json beside it")

    def check_finished(self) -> None:
        """As `check_unedited`, and by what run.json records of the other files of a finished run."""
        self.check_unedited()
        recorded, found = self.status().get("files", {}), self.file_digests()
        for name in recorded:
            if recorded[name] != found.get(name):
                how = "another than the training wrote, says run.json beside it" if name in found else "gone"
                raise _damaged(self.file(name), f"it is {how}")

    def write_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write epochs.csv anew."""
        write_whole(self.file("epochs.csv"), table_text(history).encode())

    def write_rule(self, rule: InstanceRule) -> None:
        """Write rule.json."""
        write_whole(self.file("rule.json"), json.dumps(asdict(rule), indent=1).encode())

    def config(self) -> TrainConfig:
        """The configuration that the run was started with."""
        try:
            recipe = load_recipe(self.file("config.toml"), "train")
            return resolve(TrainConfig, recipe, {"run": self.path})
        except ConfigError as error:
            raise _damaged(self.file("config.toml"), error) from None

    def split(self) -> Split:
        """The ids that the run was given."""
        content: dict[str, Any] = self._read("split.json", Split)
        lists = {name: tuple(content[name]) for name in ("train", "validation", "test", "notes")}
        ids = (*lists["train"], *lists["validation"], *lists["test"])
        if len(set(ids)) < len(ids) or not all(lists[part] for part in ("train", "validation", "test")):
            raise _damaged(self.file("split.json"), "a part is empty, or an id stands in it twice")
        return Split(protocol=content["protocol"], **lists)

    def inputs(self) -> RunProvenance:
        """What the run was made from."""
        return RunProvenance(**self._read("inputs.json", RunProvenance))

    def rule(self) -> InstanceRule:
        """The rule that was chosen on the validation part."""
        content = self._read("rule.json", InstanceRule)
        try:
            return InstanceRule(**content)
        except ConfigError as error:
            raise _damaged(self.file("rule.json"), error) from None

    def status(self) -> dict[str, Any]:
        """The content of run.json."""
        content = self._read("run.json", None)
        if "digest" in content and content.pop("digest") != _digest(content):
            raise _damaged(self.file("run.json"), "it was changed after it was written, says the digest in it")
        if content.get("format") != FORMAT or "status" not in content:
            raise ConfigError(
                f"{self.path} is a run of format {content.get('format')!r}, this version reads {FORMAT}. "
                "Read it with the version that wrote it, or train again in another folder (--run)."
            )
        chosen = {"best_epoch": int, "validation_dice": float} if content["status"] == "finished" else {}
        for name, kind in chosen.items():
            if type(content.get(name)) is not kind:
                raise _damaged(self.file("run.json"), f"{name} is {content.get(name)!r}")
        return content

    def history(self) -> list[dict[str, float]]:
        """The rows of epochs.csv."""
        try:
            with self.file("epochs.csv").open(newline="") as file:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise _damaged(self.file("epochs.csv"), error) from None
        if not rows:
            raise _damaged(self.file("epochs.csv"), "it is empty")
        missing = sorted({column.name for column in fields(EpochRecord)} - rows[0].keys())
        if missing:
            raise _damaged(self.file("epochs.csv"), f"it has no column {missing[0]}")
        return rows

    def _read(self, name: str, kind: type[Any] | None) -> dict[str, Any]:
        """A JSON object that has the fields of `kind`."""
        try:
            content = json.loads(self.file(name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(self.file(name), error) from None
        known = set() if kind is None else {field.name for field in fields(kind)}
        if not isinstance(content, dict) or (kind is not None and not known - ADDED <= set(content) <= known):
            raise _damaged(self.file(name), "it does not hold what belongs there")
        if kind is not None and (wrong := misfit(content, kind)):
            raise _damaged(self.file(name), f"it does not hold what belongs there: {wrong}")
        return content


def table_text(rows: Sequence[Mapping[str, float]]) -> str:
    """CSV with a header, of at least one row."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunBusy(
            f"Another process is training in {path}. Wait for it, or choose another folder with --run."
        ) from None
    except OSError:
        pass  # a file system without locks: the user is trusted to start a run once


def _refuse_differences(recorded: TrainConfig, asked: TrainConfig, path: Path) -> None:
    names = [field.name for field in fields(asked) if field.name not in FREE_FIELDS]
    differing = [name for name in names if getattr(recorded, name) != getattr(asked, name)]
    # with a constant schedule the epochs so far are those of a longer run
    if differing == ["epochs"] and asked.epochs > recorded.epochs and asked.schedule == "constant":
        return
    if differing:
        lines = [f"  {name}: {getattr(recorded, name)}, asked for {getattr(asked, name)}" for name in differing]
        raise ConfigError(
            "\n".join([f"The run in {path} was started with another configuration:", *lines])
            + f"\nResume it as it was (--recipe {path / 'config.toml'}), or train anew in another folder (--run)."
        )


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _damaged(path: Path, why: object) -> ConfigError:
    reason = str(why).rstrip(".")
    return ConfigError(
        f"{path} cannot be read: {reason}. Bring the file back from a copy, or delete the run's folder and train again."
    )
