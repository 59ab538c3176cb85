"""Run every command with every name that its options take, in the interpreter of an installed wheel.

A script, started by test_wheel.py: the environment of the wheel has no pytest. All commands run in one process, because
importing torch takes seconds. The current folder is empty and receives everything.
"""

import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import permutations
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from nucseg.data import dataset_names, synthetic_dataset
from nucseg.errors import ConfigError
from nucseg_pipeline import config as configs
from nucseg_pipeline.cli import app
from nucseg_pipeline.cli.choices import choices
from nucseg_pipeline.config.commands import flag
from nucseg_pipeline.config.recipe import read_recipe, recipe_names

STAGES = {
    "ablate": configs.AblateConfig,
    "distill": configs.DistillConfig,
    "embed": configs.EmbedConfig,
    "fidelity": configs.FidelityConfig,
    "figures": configs.FiguresConfig,
    "predict": configs.PredictConfig,
    "report": configs.ReportConfig,
    "train": configs.TrainConfig,
}

FIDELITY_CHANGES = {"transforms": "--transform", "photometric": "--photometric"}
"""Fields of `fidelity` that can be given several times, and their options."""

FREE_TEXT = {"baseline", "cache", "dataset", "datasets", "images", "names", "scene", "scheduler", "stain"}
"""Text fields without a list of names: places, and names that the user chooses."""

CANNOT_RUN = {
    ("device", "cuda"): "0 CUDA devices",
    ("log", "tensorboard"): r"nucseg\[tensorboard\]",
    ("mixed_precision", "fp16"): "needs a CUDA device",
    ("encoder", "onnx:FILE"): r"nucseg\[onnx\]",
    ("encoder", "vit_b"): "nucseg fetch vit_b",
    ("encoder", "vit_l"): "nucseg fetch vit_l",
    ("encoder", "vit_h"): "nucseg fetch vit_h",
}
"""Values that need an extra, a download or a device: the message that names what is missing."""
if not torch.backends.mps.is_available():
    CANNOT_RUN["device", "mps"] = "has none"

TINY_TRAINING = {
    "dataset": "mine", "encoder": "student", "width": 2, "epochs": 1, "epoch_images": 2, "validation_images": 1,
    "batch_size": 2, "threads": 1,
}  # fmt: skip

TABLE = """
[ablation]
title = "Two rows"
datasets = ["mine"]
baseline = "alone"

[train]
width = 2
epochs = 1
epoch_images = 2
validation_images = 1
batch_size = 2

[[row]]
name = "alone"
fusion = "none"

[[row]]
name = "guided"
fusion = "concat"
"""

N_IMAGES = 5
STUDENT = resources.files("nucseg.encoders.student") / "student.safetensors"

done: list[str] = []


def nucseg(*words: object, fails: str = "", status: Sequence[int] = (0,)) -> str:
    """Run a command, which must succeed, or else fail with one message that matches `fails`; returns its output."""
    line = [str(word) for word in words]
    result = CliRunner().invoke(app, line)
    output = " ".join(result.output.split())
    expected = result.exit_code == 1 and re.search(fails, output) if fails else result.exit_code in status
    if not expected or not isinstance(result.exception, SystemExit | None):
        traceback.print_exception(result.exception)
        sys.exit(f"nucseg {' '.join(line)}: exit status {result.exit_code}, expected {fails or status}\n{output}")
    done.append(" ".join(line))
    return output


def options(values: Mapping[str, object]) -> list[object]:
    """Fields as options of the command line."""
    words: list[object] = []
    for name, value in values.items():
        for item in value if isinstance(value, tuple) else (value,):
            words += [] if item is None else [flag(name)] if item is True else [flag(name), item]
    return words


def names(command: str, field: str) -> tuple[str, ...]:
    """The names that an option takes."""
    listed = choices(STAGES[command], field)
    return tuple(listed()) if listed else ()


def every_command() -> Iterator[str]:
    """The commands of the app, as they are typed."""
    for group, prefix in ((app, ""), *((entry.typer_instance, f"{entry.name} ") for entry in app.registered_groups)):
        for command in group.registered_commands:
            yield prefix + command.callback.__name__


def named(command: str, *without: str) -> dict[str, tuple[str, ...]]:
    """Field -> the names that it takes and that can run here; every text field has some or is in `FREE_TEXT`."""
    found = {}
    for name, hint in get_type_hints(STAGES[command]).items():
        listed = choices(STAGES[command], name)
        if listed is None and "str" in str(hint) and name not in FREE_TEXT:
            sys.exit(f"The option {name} of {command} takes text: add its names to cli/choices.py, or it to FREE_TEXT.")
        if listed is not None and name not in without:
            found[name] = tuple(value for value in listed() if (name, value) not in CANNOT_RUN)
    return found


def combinations(
    command: str, values: Mapping[str, Sequence[str]], base: Mapping[str, object]
) -> Iterator[dict[str, Any]]:
    """A few configurations in which every value occurs; values that exclude each other are in different ones."""
    missing = {name: list(listed) for name, listed in values.items()}
    while any(missing.values()):
        chosen = dict(base)
        for name in [name for name, left in missing.items() if left]:
            trial = {**chosen, name: missing[name][0]}
            try:
                STAGES[command](**trial)
            except ConfigError:
                continue
            chosen[name] = missing[name].pop(0)
        if chosen == base:
            sys.exit(f"Nothing of {missing} can be combined with {base}.")
        yield chosen


def draw() -> None:
    """Write images and masks: the fewest that all split protocols can divide, with two in the first test set."""
    for number, entry in enumerate(synthetic_dataset(N_IMAGES, side_px=128).entries):
        sample, *_ = entry.read()
        for kind, pixels in (("images", sample.image), ("masks", sample.instances.astype(np.uint16))):
            folder = Path("my-slides") / kind / f"patient-{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")


def embed() -> list[dict[str, Any]]:
    """Embed drawn images in every way; returns the precisions and formats of the student's embeddings."""
    base = {"dataset": "mine", "threads": 1}
    nucseg("embed", *options({**base, "source": "my-slides", "encoder": "none"}))
    nucseg("embed", *options({**base, "dataset": "synthetic", "encoder": "none", "limit": 1}))
    made = []
    for chosen in combinations(
        "embed", named("embed", "encoder", "views", "stain", "convert"), {**base, "encoder": "student"}
    ):
        nucseg("embed", *options(chosen))
        made.append({name: chosen[name] for name in ("precision", "format") if name in chosen})
    for views in names("embed", "views"):
        nucseg("embed", *options({**base, "encoder": "student", "views": views}))
    for encoder in names("embed", "encoder"):
        spec = encoder.replace("onnx:FILE", "onnx:encoder.onnx").replace("SEED", "1").replace("FILE", str(STUDENT))
        nucseg("embed", *options({**base, "limit": 1, "encoder": spec}), fails=CANNOT_RUN.get(("encoder", encoder), ""))
    for stain in names("embed", "stain"):
        nucseg("embed", *options({**base, "encoder": "none", "limit": 1, "stain": stain}))
    for convert in names("embed", "convert"):  # part of the preparation, so that each needs a store of its own
        chosen = {"source": "my-slides", "encoder": "none", "convert": convert, "cache": f"cache-{convert}"}
        nucseg("embed", *options({**base, **chosen}))
    nucseg("embed", *options({**base, "encoder": "student", "workers": 1}))
    nucseg("embed", *options({**base, "encoder": "student", "cache": "s3://bucket/cache"}), fails=r"nucseg\[s3\]")
    return made


def train(embedded: Sequence[Mapping[str, Any]]) -> None:
    """Train networks of every kind on two images, then on embeddings and views of every kind."""
    values = named("train", "encoder", "views", "precision", "format")
    values = {**values, "classification_guided": (True,), "deep_supervision": (True,)}
    for number, chosen in enumerate(combinations("train", values, {**TINY_TRAINING, **embedded[0]})):
        nucseg("train", *options({**chosen, "run": f"runs/{number}"}))
    nucseg("train", *options({**chosen, "run": f"runs/{number}", "epochs": 1, "resume": True}))
    for number, stored in enumerate(embedded):
        nucseg("train", *options({**TINY_TRAINING, **stored, "fusion": "concat", "run": f"runs/embedded-{number}"}))
    for views in names("train", "views"):
        chosen = {**TINY_TRAINING, **embedded[0], "views": views, "run": f"runs/{views}"}
        nucseg("train", *options(chosen))
    for (field, name), fails in CANNOT_RUN.items():
        if field != "encoder":
            nucseg("train", *options({**TINY_TRAINING, **embedded[0], field: name, "run": "runs/none"}), fails=fails)
    for recipe in recipe_names():
        if "train" in read_recipe(recipe) and "ablation" not in read_recipe(recipe):
            chosen = {**TINY_TRAINING, **embedded[0], "recipe": recipe, "run": f"runs/recipe-{recipe}"}
            nucseg("train", *options(chosen))


def use_runs() -> None:
    """Score, draw and apply the trained networks."""
    guided = min(str(file.parent) for file in Path("runs").glob("embedded-*/run.json"))
    for grid in names("report", "grid"):
        nucseg("report", guided, *options({"grid": grid, "n_resamples": 10, "n_images": 1, "out": f"report-{grid}"}))
    for file_format in names("figures", "format"):
        nucseg("figures", guided, *options({"format": file_format, "n_images": 1, "out": f"figures-{file_format}"}))
    image = synthetic_dataset(1, side_px=300).entries[0].read_image()[0]
    for suffix in ("png", "jpg", "tif"):
        Image.fromarray(image).save(f"new-{suffix}.{suffix}")
        nucseg("predict", f"new-{suffix}.{suffix}", *options({"run": guided, "out": "predictions", "threads": 1}))
    for convert in names("predict", "convert"):
        chosen = {"run": guided, "convert": convert, "out": f"predictions-{convert}", "threads": 1}
        nucseg("predict", "new-png.png", *options(chosen))
    Path("slide.mrxs").write_bytes(b"a slide of a scanner")
    wanted = {"run": guided, "out": "predictions", "threads": 1}
    nucseg("predict", "slide.mrxs", *options(wanted), fails=r"nucseg\[slides\]")


def compare() -> None:
    """Make tables, measure replay and distill students."""
    Path("table.toml").write_text(TABLE)
    table = {"threads": 1, "device": "cpu"}
    nucseg("ablate", "table.toml", *options({**table, "encoder": "student", "dataset": "mine", "out": "table"}))
    for recipe in names("ablate", "recipe"):  # the data set is not here, so that nothing is trained
        nucseg("ablate", recipe, *options({**table, "dataset": "nuinsseg", "out": f"{recipe}-table"}), status=(1,))
    measured = {
        "dataset": "mine", "encoder": "student", "format": "f16", "images": 2, "calibration_images": 1, "threads": 1
    }  # fmt: skip
    changes = {option: set(names("fidelity", field)) for field, option in FIDELITY_CHANGES.items()}
    words = [word for option in changes for name in sorted(changes[option] - {"none"}) for word in (option, name)]
    nucseg("fidelity", *options(measured), *words)
    for option, other in permutations(changes):
        nucseg("fidelity", *options({**measured, "out": f"without{option}"}), option, "none", other, "papers")
    distilled = {"dataset": ("mine",), "teacher": "student", "format": "f16", "epochs": 1, "threads": 1}
    values = named("distill", "teacher", "views", "precision", "format")
    for number, chosen in enumerate(combinations("distill", values, {**distilled, "views": ("identity",)})):
        nucseg("distill", *options({**chosen, "out": f"students/{number}"}))
    nucseg(
        "distill", *options({**distilled, "views": names("distill", "views"), "size": "small", "out": "students/all"})
    )


def look() -> None:
    """Everything that shows and checks what is there."""
    nucseg("datasets")
    for name in dataset_names():
        nucseg("datasets", name, "--no-read")
    nucseg("models")
    for name in names("train", "model"):
        nucseg("models", "--model", name, "--width", 2)
    nucseg("fetch")
    nucseg("fetch", "synthetic", fails="generated, not fetched")
    for command in ("info", "verify", "prune"):
        nucseg("cache", command, "mine")
    nucseg("cache", "info", "s3://bucket/synthetic.zarr", fails=r"nucseg\[s3\]")
    nucseg("demo", "--quick", "--out", "demo")


def main() -> None:
    """Run everything."""
    nucseg("--help")
    nucseg("--version")
    draw()
    train(embed())
    use_runs()
    compare()
    look()
    commands = {line.split()[0] for line in done} | {" ".join(line.split()[:2]) for line in done}
    missing = [name for name in every_command() if name not in commands]
    if missing:
        sys.exit(f"No line runs {', '.join(missing)}.")
    sys.stdout.write(f"{len(done)} commands ran\n")


if __name__ == "__main__":  # `embed --workers` starts processes that import this file
    main()
