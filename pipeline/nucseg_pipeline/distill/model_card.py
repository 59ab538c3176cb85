"""The model card of a student: what it is, what it was made from, how good it is, and what its maker has to add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.distill.evaluate import PATTERN, Fidelity
from nucseg_pipeline.distill.training_sets import Course
from nucseg_pipeline.formatting import bounds, number


def card(config: DistillConfig, courses: Sequence[Course], found: Mapping[str, Fidelity], n_parameters: int) -> str:
    """Markdown."""
    teacher = courses[0].teacher
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
        "| data set | trained on | chosen by | tested on | views shown | split |",
        "|---|---:|---:|---:|---:|---|",
        *(_data(course) for course in courses),
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
        *(line for name, one in found.items() for line in _fidelity(name, one)),
        "",
        "## Limits",
        "",
        "It has seen little beside the images named above: other organs, stains, scanners and magnifications may be "
        "imitated worse, and nothing in the embedding says so. What a model trained with it is worth, its own scores "
        "say, not the fidelity.",
        "",
    ]
    return "\n".join(lines)


def _data(course: Course) -> str:
    told = course.learned
    cells = (course.dataset, told["n_train"], told["n_validation"], told["n_test"], told["n_shown"], told["protocol"])
    return f"| {' | '.join(map(str, cells))} |"


def _fidelity(name: str, one: Fidelity) -> list[str]:
    told = {"student": one.student, PATTERN: one.pattern}
    return [
        f"| {name}, {one.n_images} | {who} | "
        + " | ".join(f"{number(value.value)} ({bounds(value)})" for value in values.values())
        + " |"
        for who, values in told.items()
    ]
