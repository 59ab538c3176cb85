"""The folder of one run of `nucseg train`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from nucseg.data.splits import Split
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.runs.digests import split_digest
from nucseg_pipeline.runs.history import EpochRecord
from nucseg_pipeline.runs.provenance import RunProvenance
from nucseg_pipeline.runs.training_folder import State, TrainingFolder


@dataclass(frozen=True)
class RunFolder(TrainingFolder[TrainConfig]):
    """Reads and writes the files of a run: those of `TrainingFolder`, and these.

    split.json      training, validation and test ids, protocol and notes
    inputs.json     store, key of the embeddings, digests of images, masks, split, configuration and code, versions
    position.npy    (256, 64, 64) float32, positional pattern of the training rows, where replay corrects for it
    mixing.npy      (8, 256, 256) float32, what a turn does to the channels, where replay learns it
    rule.json       how a probability map becomes nuclei, chosen on the validation part
    tensorboard/    event files, where they were asked for
    """

    CONFIG: ClassVar[type[Any]] = TrainConfig
    COMMAND: ClassVar[str] = "train"
    NOUN: ClassVar[str] = "run"
    OPTION: ClassVar[str] = "--run"
    RESUME: ClassVar[str] = "run the same command with --resume"
    NOT_RECORDED: ClassVar[tuple[str, ...]] = ("run", "resume")
    SEALED: ClassVar[tuple[str, ...]] = ("best.pt", "rule.json", "position.npy", "mixing.npy")
    FINISHED: ClassVar[dict[str, type]] = {"best_epoch": int, "validation_dice": float, "changed": list}

    def state(self, config: TrainConfig) -> State:
        """See `TrainingFolder.state`; ConfigError also where there is a run and resuming was not asked for."""
        if not self.is_new() and not config.resume:
            raise ConfigError(
                f"{self.path} already contains a run ({self.status()['status']}). Continue it with --resume, report it "
                "with `nucseg report`, or choose another folder with --run."
            )
        return super().state(config)

    def _may_continue(self, recorded: TrainConfig, asked: TrainConfig) -> bool:
        # with a constant schedule the epochs so far are those of a longer run
        return asked.epochs > recorded.epochs and asked.schedule == "constant"

    def start(self, config: TrainConfig, parts: Split, inputs: RunProvenance) -> None:
        """Set the folder up; run.json comes last, so without it nothing has begun."""
        self.write_config(config)
        self.write("split.json", json.dumps(asdict(parts), indent=1))
        self.write("inputs.json", inputs.to_json())
        self.write_status("training", changed=[])

    def lengthen(self, config: TrainConfig) -> None:
        """Continue the run for more epochs."""
        # the status first: a kill in between must not leave a longer run that is called finished
        self.write_status("training", changed=self.changed())
        self.write_config(config)

    def record_changes(self, changes: Iterable[str]) -> None:
        """Record that the run is resumed with other versions or code than it was started with."""
        before = self.changed()
        new = [line for line in changes if line not in before]
        if new:
            self.write_status("training", changed=[*before, *new])

    def changed(self) -> list[str]:
        """The versions and code that changed while the run was trained, one line for each time it was resumed."""
        return list(self.status()["changed"])

    def check_unedited(self) -> None:
        """See `TrainingFolder.check_unedited`."""
        super().check_unedited()
        if split_digest(self.split()) != self.inputs().split:
            raise self._edited("split.json")

    def write_rule(self, rule: InstanceRule) -> None:
        """Write rule.json."""
        self.write("rule.json", json.dumps(asdict(rule), indent=1))

    def split(self) -> Split:
        """The ids that the run was given."""
        content = self.read_json("split.json", Split)
        lists = {name: tuple(content[name]) for name in ("train", "validation", "test", "notes")}
        ids = (*lists["train"], *lists["validation"], *lists["test"])
        if len(set(ids)) < len(ids) or not all(lists[part] for part in ("train", "validation", "test")):
            raise self.damaged("split.json", "a part is empty, or an id is in it twice")
        return Split(protocol=content["protocol"], **lists)

    def inputs(self) -> RunProvenance:
        """What the run was made from."""
        return RunProvenance(**self.read_json("inputs.json", RunProvenance))

    def rule(self) -> InstanceRule:
        """The rule that was chosen on the validation part."""
        content = self.read_json("rule.json", InstanceRule)
        try:
            return InstanceRule(**content)
        except ConfigError as error:
            raise self.damaged("rule.json", error) from None

    def history(self) -> list[dict[str, float]]:
        """The rows of epochs.csv."""
        rows = super().history()
        missing = sorted({column.name for column in fields(EpochRecord)} - rows[0].keys())
        if missing:
            raise self.damaged("epochs.csv", f"it has no column {missing[0]}")
        return rows
