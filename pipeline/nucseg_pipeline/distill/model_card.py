"""The model card of a student: what it is, what it was made from, how good it is, and what its maker has to add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.distill.evaluate import PATTERN, Fidelity
from nucseg_pipeline.distill.training_sets import TeacherSet
from nucseg_pipeline.formatting import bounds, number


def model_card(
    config: DistillConfig, sets: Sequence[TeacherSet], fidelity: Mapping[str, Fidelity], n_parameters: int
) -> str:
    """The card in Markdown."""
    teacher = sets[0].teacher
    lines = [
        "# Model card: a distilled image encoder",
        "",
        f"A `{config.size}` student of nucseg: {n_parameters:,} parameters, float16 in the file, images of 256 px in, "
        "embeddings of 256 x 64 x 64 out, in the space of its teacher. Use it with `--encoder student:FILE`.",
        "",
        "## Teacher",
        "",
        *(f"- {name}: `{value}`" for name, value in teacher.items()),
        "- licence: to be filled in: that of the teacher's weights may bind what was distilled from them",
        "",
        "## Data",
        "",
        "| data set | trained on | chosen by | tested on | views learned | split |",
        "|---|---:|---:|---:|---:|---|",
        *(_data_row(teacher_set) for teacher_set in sets),
        "",
        "Licences: to be filled in for each data set.",
        "",
        "## Fidelity on the test images",
        "",
        "Error: squared distance from the teacher's embedding, 1 being that of the channel means. Centred cosine: "
        "between embeddings less the channel means. 95 % intervals, by bootstrap over groups.",
        "",
        "| data set | what | error | cosine | centred cosine |",
        "|---|---|---:|---:|---:|",
        *(row for name, found in fidelity.items() for row in _fidelity_rows(name, found)),
        "",
        "## Limits",
        "",
        "It was trained on little more than the images named above: other organs, stains, scanners and magnifications "
        "may be imitated worse, and nothing in the embedding says so. The quality of a model trained with it is "
        "measured by that model's own scores, not by the fidelity.",
        "",
    ]
    return "\n".join(lines)


def _data_row(teacher_set: TeacherSet) -> str:
    learned = teacher_set.description
    names = ("n_train", "n_validation", "n_test", "n_shown", "protocol")
    return f"| {' | '.join(map(str, (teacher_set.dataset, *(learned[name] for name in names))))} |"


def _fidelity_rows(name: str, fidelity: Fidelity) -> list[str]:
    return [
        f"| {name}, {fidelity.n_images} | {who} | "
        + " | ".join(f"{number(value.value)} ({bounds(value)})" for value in values.values())
        + " |"
        for who, values in (("student", fidelity.student), (PATTERN, fidelity.pattern))
    ]
