"""Recipes that are not TOML, have invalid values, or are malicious."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from nucseg_pipeline.cli import app
from tests.torture.inputs.drawing import picture

FAULT = "recipe: invalid or malicious"

NOT_TOML: dict[str, bytes] = {
    "binary": bytes(range(256)) * 9,
    "zeros": bytes(999),
    "JSON": b'{"train": {"epochs": 1}}',
    "YAML": b"train:\n  epochs: 1\n",
    "Python": b"import os; os.system('touch pwned')\n",
    "HTML": b"<html></html>",
    "UTF-16": "[train]\nepochs = 1\n".encode("utf-16"),
    "latin 1": '[train]\nencoder = "Größe"\n'.encode("latin-1"),
    "an open string": b'[train]\nencoder = "x\n',
    "an open table": b"[train\n",
    "a key twice": b"[train]\nepochs = 1\nepochs = 2\n",
    "a table twice": b"[train]\nepochs = 1\n[train]\nseed = 2\n",
    "deep lists": b"[train]\nx = " + b"[" * 50_000 + b"]" * 50_000,
    "deep tables": b"[train]\nx = " + b"{a=" * 50_000 + b"1" + b"}" * 50_000,
    "deep dotted keys": b"[train]\n" + b".".join([b"a"] * 50_000) + b" = 1\n",
    "a control character": b'[train]\nencoder = "a\x07b"\n',
    "a lone surrogate": b'[train]\nencoder = "\\ud800"\n',
    "only a bracket": b"[",
    "a key of 50,000 quoted parts": b"[" + b" . ".join([b'"a"'] * 50_000) + b"]\n",
    "a word of a million letters": b"a" * 1_000_000,
    "10 MB of brackets": b"[" * 10_000_000,
}

INVALID: dict[str, str] = {
    "an unknown table": "[nonsense]\nx = 1\n",
    "a table nearly right": "[trian]\nepochs = 1\n",
    "an unknown key": "[train]\nepoch = 1\n",
    "a key of another stage": "[train]\nlimit = 3\n",
    "a key with dots": "[train]\nepochs.x = 1\n",
    "a key that is empty": '[train]\n"" = 1\n',
    "a key that is special": "[train]\n__post_init__ = 1\n",
    "a value outside a table": "epochs = 1\n",
    "a list of tables": "[[train]]\nepochs = 1\n",
    "text for a number": '[train]\nepochs = "many"\n',
    "a float for a number": "[train]\nepochs = 1.5\n",
    "true for a number": "[train]\nepochs = true\n",
    "a number for text": "[train]\nencoder = 3\n",
    "a list for text": '[train]\nencoder = ["a"]\n',
    "a table for text": "[train]\nencoder = {a = 1}\n",
    "a date": "[train]\nepochs = 2020-01-01\n",
    "NaN": "[train]\nlearning_rate = nan\n",
    "infinity": "[train]\nlearning_rate = inf\n",
    "minus infinity": "[train]\ndropout = -inf\n",
    "negative": "[train]\nepochs = -1\n",
    "zero": "[train]\nwidth = 0\n",
    "a seed too large": "[train]\nseed = 99999999999999999999999\n",
    "a number of 5,000 digits": "[train]\nepochs = " + "9" * 5_000 + "\n",
    "a number of too many digits": "[train]\nseed = " + "1" * 4_000 + "\n",
    "a huge width": "[train]\nwidth = 9999999999999\n",
    "a huge fold": "[train]\nfold = 9999999999999999999\n",
    "a dropout of one": "[train]\ndropout = 1.0\n",
    "an empty text": '[train]\nencoder = ""\n',
    "a NUL in a path": '[train]\nweights = "a\\u0000b"\n',
    "a NUL in a text": '[train]\nencoder = "onnx:a\\u0000b"\n',
    "a data set outside the cache": '[train]\ndataset = "../../etc/passwd"\n',
    "a data set with a slash": '[train]\ndataset = "a/b"\n',
    "an unknown model": '[train]\nmodel = "resnet"\n',
    "an unknown fusion": '[train]\nfusion = "magic"\n',
    "an unknown split": '[train]\nsplit = "random"\n',
    "an unknown device": '[train]\ndevice = "tpu"\n',
    "an encoder that runs code": "[train]\nencoder = \"__import__('os')\"\n",
    "views outside the folder": '[train]\nviews = "../../x"\n',
    "an augmentation file that is missing": '[train]\naugmentation = "/nowhere.toml"\n',
    "an augmentation of colours": '[train]\naugmentation = "ColorJitter"\n',
    "an inline augmentation that is invalid": '[train]\naugmentation = "[{"\n',
    "an augmentation of other classes": '[train]\naugmentation = \'[{"name": "Lambda"}]\'\n',
    "an ablation": '[ablation]\ntitle = "x"\n',
}
"""Recipes for `train`, on a data set that exists, each with one mistake."""


def test_recipes_that_are_not_toml(trial: Any, some_of: Any) -> None:
    for case, content in some_of(NOT_TOML, 3).items():
        folder = trial.new_folder()
        (folder / "mine.toml").write_bytes(content)
        for command in ALL_RECIPES:
            words = command_with(command, folder / "mine.toml", folder)
            trial(FAULT, f"{command[0]}: {case}", words, naming=["mine.toml"])


ALL_RECIPES = (("train", "--recipe"), ("ablate",), ("embed", "--recipe"), ("embed", "--views"))
ALL_FILES = (
    ("train", "--recipe"),
    ("ablate",),
    ("embed", "--views"),
    ("train", "--augmentation"),
    ("train", "--photometric"),
)


def command_with(command: tuple[str, ...], file: Path, folder: Path) -> list[object]:
    """A command that reads a recipe."""
    more = [] if command == ("ablate",) else ["--dataset", "synthetic", "--cache", folder / "cache"]
    encoder = ["--encoder", "random"] if command == ("embed", "--views") else []
    return [*command, file, *more, *encoder]


def test_invalid_recipes(trial: Any, dataset: Any, some_of: Any) -> None:
    data = dataset()
    for number in range(8):
        data.add(str(number), picture(number))
    assert CliRunner().invoke(app, [str(word) for word in data.embed]).exit_code == 0
    key = {name: text.partition("\n")[2].partition(" ")[0].partition(".")[0] for name, text in INVALID.items()}
    for case, text in some_of(INVALID, 5).items():
        recipe = data.folder.parent / "mine.toml"
        recipe.write_text(text)
        named = ["--dataset", "mine"] if "dataset =" not in text else []
        fixed = ["--cache", data.cache, "--run", data.folder.parent / "run", "--threads", 1]
        device = ["--device", "cpu"] if "device" not in text else []
        small = [["--fusion", "none"], ["--model", "unet"], ["--epochs", 1], ["--width", 2]]
        needed = [word for pair in small if f"{pair[0][2:]} =" not in text for word in pair if "encoder" not in text]
        value = text.split(" = ")[-1].strip('\n"')
        naming = ["mine.toml", key[case] or "mine.toml", key[case].replace("_", "-"), value]
        command = ["train", "--recipe", recipe, *named, *fixed, *device, *needed]
        trial(FAULT, case, command, untouched=data.cache, naming=naming)
        assert not (data.folder.parent / "run").exists(), case


NOT_FILES: dict[str, Callable[[Path], None]] = {
    "a folder": lambda file: file.mkdir(),
    "missing": lambda file: None,
    "a dangling link": lambda file: file.symlink_to("nothing"),
    "a loop of links": lambda file: file.symlink_to(file.name),
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "a file of a terabyte": lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 1 << 40),
}


def test_recipes_that_are_not_files(trial: Any, some_of: Any) -> None:
    for case, make in some_of(NOT_FILES, 2).items():
        for command in ALL_FILES:
            folder = trial.new_folder()
            make(folder / "mine.toml")
            words = command_with(command, folder / "mine.toml", folder)
            case_name = f"{' '.join(command)}: {case}"
            trial("recipe: not a file, or endless", case_name, words, naming=["mine.toml"])


VIEWS: dict[str, str] = {
    "nothing": "",
    "no transform": "variants = 3\n",
    "too many variants": 'variants = 1000000\n[[transform]]\nname = "HEDJitter"\n',
    "no variants": 'variants = 0\n[[transform]]\nname = "HEDJitter"\n',
    "variants that are no number": 'variants = "x"\n[[transform]]\nname = "HEDJitter"\n',
    "a seed that is negative": 'seed = -1\n[[transform]]\nname = "HEDJitter"\n',
    "an unknown transform": '[[transform]]\nname = "os.system"\n',
    "a transform of another module": '[[transform]]\nname = "__class__"\n',
    "a transform without a name": "[[transform]]\np = 1.0\n",
    "a name that is a list": '[[transform]]\nname = ["HEDJitter"]\n',
    "a geometric transform": '[[transform]]\nname = "Rotate"\n',
    "a probability above one": '[[transform]]\nname = "HEDJitter"\np = 1.5\n',
    "a probability that is NaN": '[[transform]]\nname = "HEDJitter"\np = nan\n',
    "a reversed range": '[[transform]]\nname = "HEDJitter"\nscale = [1.2, 0.8]\n',
    "a range of one": '[[transform]]\nname = "HEDJitter"\nscale = [1.2]\n',
    "an infinite range": '[[transform]]\nname = "HEDJitter"\nscale = [0.8, inf]\n',
    "a range of texts": '[[transform]]\nname = "HEDJitter"\nscale = ["a", "b"]\n',
    "a huge number": '[[transform]]\nname = "HEDJitter"\nscale = [0.8, 1' + "0" * 400 + "]\n",
    "a table of transforms": '[transform]\nname = "HEDJitter"\n',
    "an unknown key": '[[transform]]\nname = "HEDJitter"\nfile = "/etc/passwd"\n',
}

AUGMENTATIONS: dict[str, str] = {
    "nothing": "",
    "no list": '[transform]\nname = "D4"\n',
    "a number": "transform = 3\n",
    "a list of numbers": "transform = [1, 2]\n",
    "an extra key": 'x = 1\n[[transform]]\nname = "D4"\n',
    "an unknown transform": '[[transform]]\nname = "Nonsense"\n',
    "a transform that runs code": '[[transform]]\nname = "Lambda"\nimage = "print"\n',
    "a function of the library": '[[transform]]\nname = "from_dict"\n',
    "an attribute of the library": '[[transform]]\nname = "__builtins__"\n',
    "a transform that reads files": '[[transform]]\nname = "FDA"\nreference_images = ["/etc/passwd"]\n',
    "colours": '[[transform]]\nname = "ColorJitter"\n',
    "an unknown parameter": '[[transform]]\nname = "Rotate"\nlimits = 3\n',
    "an internal parameter": '[[transform]]\nname = "Rotate"\nfill = 3\n',
    "a parameter of a wrong type": '[[transform]]\nname = "Rotate"\nlimit = "far"\n',
    "an infinite parameter": '[[transform]]\nname = "Rotate"\nlimit = [0.0, inf]\n',
    "a probability of two": '[[transform]]\nname = "D4"\np = 2\n',
    "an empty group": "[[transform]]\none_of = []\n",
    "a group of zeros": '[[transform]]\none_of = [{ name = "D4", p = 0 }]\n',
    "400 nested groups": "[[transform]]\n" + "all_of = [{ " * 400 + "name = 1" + " }]" * 400 + "\n",
    "a date": '[[transform]]\nname = "Rotate"\nlimit = 2020-01-01\n',
    "a huge elastic field": '[[transform]]\nname = "ElasticTransform"\nalpha = 1e300\nsigma = 1e300\n',
    "a grid of too many cells": '[[transform]]\nname = "GridDistortion"\nnum_steps = 100000000\n',
    "a negative sigma": '[[transform]]\nname = "ElasticTransform"\nsigma = -5\n',
}


def test_views(trial: Any, some_of: Any) -> None:
    for case, text in some_of(VIEWS, 5).items():
        folder = trial.new_folder()
        (folder / "mine.toml").write_text(text)
        words = command_with(("embed", "--views"), folder / "mine.toml", folder)
        trial(FAULT, f"views: {case}", words, naming=["mine.toml"])
        assert not (folder / "cache").exists()
    for name in some_of(dict.fromkeys(("identity", "d4-x", "a b", "ä", "..", ".toml", "-x", "a/../d4")), 3):
        folder = trial.new_folder()
        (folder / "a").mkdir()
        file = folder / f"{name}.toml"
        file.write_text('[[transform]]\nname = "HEDJitter"\n')
        words = command_with(("embed", "--views"), file, folder)
        trial(FAULT, f"views called {name}", words, naming=[file.name, name])


def test_augmentations(trial: Any, some_of: Any) -> None:
    for case, text in some_of(AUGMENTATIONS, 4).items():
        folder = trial.new_folder()
        (folder / "mine.toml").write_text(text)
        words = command_with(("train", "--augmentation"), folder / "mine.toml", folder)
        trial(FAULT, f"augmentation: {case}", words, naming=["mine.toml", "augmentation"], seconds=30)


TABLE = '[ablation]\ntitle = "t"\ndatasets = ["synthetic"]\nbaseline = "a"\n[train]\nepochs = 1\n[[row]]\nname = "a"\n'

TABLES: dict[str, Callable[[str], str]] = {
    "no rows": lambda t: t.partition("[[row]]")[0],
    "a row without a name": lambda t: t.replace('name = "a"', 'stain = "none"'),
    "two rows of one name": lambda t: t + '[[row]]\nname = "a"\n',
    "a baseline that is no row": lambda t: t.replace('baseline = "a"', 'baseline = "b"'),
    "a data set outside the cache": lambda t: t.replace('["synthetic"]', '["../x"]'),
    "data sets that are no list": lambda t: t.replace('["synthetic"]', '"synthetic"'),
    "data sets that are numbers": lambda t: t.replace('["synthetic"]', "[1]"),
    "folds that are no table": lambda t: t.replace("[train]", "folds = 3\n[train]"),
    "no folds": lambda t: t.replace("[train]", "folds = { synthetic = 0 }\n[train]"),
    "seeds that are text": lambda t: t.replace("[train]", 'seeds = ["a"]\n[train]'),
    "a seed that is negative": lambda t: t.replace("[train]", "seeds = [-1]\n[train]"),
    "an unknown key": lambda t: t.replace("[train]", 'shell = "touch pwned"\n[train]'),
    "a field that the ablation sets": lambda t: t.replace("epochs = 1", "seed = 1"),
    "a row that is a number": lambda t: t.replace('[[row]]\nname = "a"', "").replace(
        "[ablation]", "row = 3\n[ablation]"
    ),
    "a grid that is a list": lambda t: t + "[[grid]]\nepochs = [1]\n",
    "a grid without values": lambda t: t + "[grid]\nepochs = []\n",
    "a grid of millions": lambda t: (
        t
        + "[grid]\n"
        + "".join(
            f"{name} = [{', '.join(map(str, range(1, 200)))}]\n"
            for name in ("width", "epochs", "batch_size", "epoch_images")
        )
    ),
    "an unknown stain": lambda t: t + 'stain = "pink"\n',
    "published numbers of text": lambda t: t + 'published = { synthetic = { dice = "x" } }\n',
    "a title that is a list": lambda t: t.replace('title = "t"', "title = []"),
    "an ablation that is a number": lambda t: "ablation = 3\n",
    "rows of a wrong type": lambda t: t + "epochs = []\n",
}


def test_tables(trial: Any, some_of: Any) -> None:
    for case, change in some_of(TABLES, 4).items():
        folder = trial.new_folder()
        (folder / "mine.toml").write_text(change(TABLE))
        folders = ["--cache", folder / "cache", "--runs", folder / "runs", "--out", folder / "out"]
        command = ["ablate", folder / "mine.toml", "--quick", *folders]
        trial(FAULT, f"table: {case}", command, naming=["mine.toml"], seconds=30)
