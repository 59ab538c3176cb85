"""The folder of one distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from nucseg.errors import ConfigError
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.runs.digests import configuration_digest, json_digest
from nucseg_pipeline.runs.training_folder import TrainingFolder

STUDENT = "student.safetensors"


@dataclass(frozen=True)
class StudentProvenance:
    """What a student is distilled from, as inputs.json holds it."""

    configuration: str
    """Digest of the fields of config.toml in which a resumed distillation may not differ."""
    datasets: Mapping[str, Mapping[str, Any]]
    """Data set -> `TeacherSet.description`."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the result."""
        return json_digest(asdict(self))


@dataclass(frozen=True)
class StudentFolder(TrainingFolder[DistillConfig]):
    """Reads and writes the files of a distillation: those of `TrainingFolder`, and these.

    student.safetensors   the encoder, for `--encoder student:FILE`
    fidelity.json         how well the embeddings of the test images are imitated
    card.md               model card, in which the user fills in what nucseg cannot know
    """

    CONFIG: ClassVar[type[Any]] = DistillConfig
    COMMAND: ClassVar[str] = "distill"
    NOUN: ClassVar[str] = "distillation"
    OPTION: ClassVar[str] = "--out"
    RESUME: ClassVar[str] = "run the same command again"
    NOT_RECORDED: ClassVar[tuple[str, ...]] = ("out",)
    SEALED: ClassVar[tuple[str, ...]] = ("best.pt", STUDENT, "fidelity.json")
    FINISHED: ClassVar[dict[str, type]] = {"best_epoch": int}

    def start(self, config: DistillConfig, datasets: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the folder up; run.json comes last, so without it nothing has begun."""
        self.write_config(config)
        self.write(
            "inputs.json", json.dumps(asdict(StudentProvenance(configuration_digest(config), datasets)), indent=1)
        )
        self.write_status("training")

    def inputs(self) -> StudentProvenance:
        """What the student is distilled from."""
        content = self.read_json("inputs.json")
        try:
            return StudentProvenance(**content)
        except TypeError:
            raise self.damaged("inputs.json", "it does not hold what belongs there") from None

    def recorded_views(self) -> dict[str, list[str]]:
        """Data set -> the views that a begun distillation learns from."""
        return {name: list(description["views"]) for name, description in self.inputs().datasets.items()}

    def check_datasets(self, datasets: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise ConfigError where the images, embeddings or views have changed since the distillation was begun."""
        recorded = self.inputs().datasets
        changed = [name for name in datasets if recorded.get(name) != json.loads(json.dumps(datasets[name]))]
        if changed:
            raise ConfigError(
                f"Images, embeddings or views that {self.path} is distilled from have changed since it was started: "
                f"those of {', '.join(changed)}. Put them back, or distill again in another folder (--out)."
            )

    def fidelity(self) -> dict[str, Any]:
        """The content of fidelity.json."""
        return self.read_json("fidelity.json")
