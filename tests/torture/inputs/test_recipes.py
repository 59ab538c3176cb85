"""Recipes and configurations that are no TOML, say what cannot be, or are meant to do harm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULT = "hostile recipe"

NO_TOML: dict[str, bytes] = {
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

NO_RECIPE: dict[str, str] = {
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
    "no number": "[train]\nlearning_rate = nan\n",
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
    "a data set that wanders": '[train]\ndataset = "../../etc/passwd"\n',
    "a data set with a slash": '[train]\ndataset = "a/b"\n',
    "an unknown model": '[train]\nmodel = "resnet"\n',
    "an unknown fusion": '[train]\nfusion = "magic"\n',
    "an unknown split": '[train]\nsplit = "random"\n',
    "an unknown device": '[train]\ndevice = "tpu"\n',
    "an encoder that runs code": "[train]\nencoder = \"__import__('os')\"\n",
    "views that wander": '[train]\nviews = "../../x"\n',
    "an augmentation that is no file": '[train]\naugmentation = "/nowhere.toml"\n',
    "an augmentation of colours": '[train]\naugmentation = "ColorJitter"\n',
    "an augmentation written out badly": '[train]\naugmentation = "[{"\n',
    "an augmentation of other classes": '[train]\naugmentation = \'[{"name": "Lambda"}]\'\n',
    "a table of the papers": '[ablation]\ntitle = "x"\n',
}
"""Each for `train`, on a data set that is there, where nothing else is wrong."""


def store(slides: Any, draw: Any) -> Any:
    from PIL import Image

    data = slides()
    for number in range(8):
        Image.fromarray(draw.picture(number)).save(data.image(f"{number}.png"))
        Image.fromarray(draw.nuclei()).save(data.mask(f"{number}.png"))
    assert draw.run(*data.embed).status == 0
    return data


def test_recipes_that_are_no_toml(trial: Any, some_of: Any) -> None:
    for case, content in some_of(NO_TOML, 5).items():
        place = trial.fresh()
        (place / "mine.toml").write_bytes(content)
        for command in (
            ["train", "--recipe"],
            ["ablate"],
            ["embed", "--recipe"],
            ["embed", "--encoder", "random", "--views"],
        ):
            more = [] if command == ["ablate"] else ["--dataset", "synthetic", "--cache", place / "cache"]
            trial(FAULT, f"{command[0]}: {case}", [*command, place / "mine.toml", *more], naming=["mine.toml"])


def test_recipes_that_say_what_cannot_be(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    data = store(slides, draw)
    key = {name: text.partition("\n")[2].partition(" ")[0].partition(".")[0] for name, text in NO_RECIPE.items()}
    for case, text in some_of(NO_RECIPE, 10).items():
        recipe = data.folder.parent / "mine.toml"
        recipe.write_text(text)
        named = ["--dataset", "mine"] if "dataset =" not in text else []
        fixed = ["--cache", data.cache, "--run", data.folder.parent / "run", "--device", "cpu", "--threads", 1]
        fixed = [one for one in fixed if "device" not in text or one not in ("--device", "cpu")]
        small = [["--fusion", "none"], ["--model", "unet"], ["--epochs", 1], ["--width", 2]]
        needed = [word for pair in small if f"{pair[0][2:]} =" not in text for word in pair if "encoder" not in text]
        trial(
            FAULT,
            case,
            ["train", "--recipe", recipe, *named, *fixed, *needed],
            untouched=data.cache,
            seconds=30,
            naming=[
                "mine.toml",
                key[case] or "mine.toml",
                key[case].replace("_", "-"),
                text.split(" = ")[-1].strip('\n"'),
            ],
        )
        assert not (data.folder.parent / "run").exists(), case


def test_recipes_that_are_no_files(trial: Any) -> None:
    for case, make in {
        "a folder": lambda file: file.mkdir(),
        "nothing": lambda file: None,
        "a dangling link": lambda file: file.symlink_to("nothing"),
        "a loop of links": lambda file: file.symlink_to(file.name),
        "a device without end": lambda file: file.symlink_to("/dev/zero"),
        "a file without end": sparse,
    }.items():
        for command in (["train", "--recipe"], ["ablate"], ["embed", "--views"], ["train", "--augmentation"]):
            place = trial.fresh()
            file = place / "mine.toml"
            make(file)
            more = [] if command == ["ablate"] else ["--dataset", "synthetic", "--cache", place / "cache"]
            trial(
                "recipe that is no file, or has no end",
                f"{' '.join(command)}: {case}",
                [*command, file, *more],
                naming=["mine.toml"],
                seconds=20,
            )


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


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
    "a geometric one": '[[transform]]\nname = "Rotate"\n',
    "a chance above one": '[[transform]]\nname = "HEDJitter"\np = 1.5\n',
    "a chance that is no number": '[[transform]]\nname = "HEDJitter"\np = nan\n',
    "a range turned over": '[[transform]]\nname = "HEDJitter"\nscale = [1.2, 0.8]\n',
    "a range of one": '[[transform]]\nname = "HEDJitter"\nscale = [1.2]\n',
    "a range without end": '[[transform]]\nname = "HEDJitter"\nscale = [0.8, inf]\n',
    "a range of texts": '[[transform]]\nname = "HEDJitter"\nscale = ["a", "b"]\n',
    "a huge number": '[[transform]]\nname = "HEDJitter"\nscale = [0.8, 1' + "0" * 400 + "]\n",
    "a table of transforms": '[transform]\nname = "HEDJitter"\n',
    "an unknown key": '[[transform]]\nname = "HEDJitter"\nfile = "/etc/passwd"\n',
}

MOTIONS: dict[str, str] = {
    "nothing": "",
    "no list": '[transform]\nname = "D4"\n',
    "a number": "transform = 3\n",
    "a list of numbers": "transform = [1, 2]\n",
    "something beside": 'x = 1\n[[transform]]\nname = "D4"\n',
    "an unknown one": '[[transform]]\nname = "Nonsense"\n',
    "one that runs code": '[[transform]]\nname = "Lambda"\nimage = "print"\n',
    "a function of the library": '[[transform]]\nname = "from_dict"\n',
    "an attribute of the library": '[[transform]]\nname = "__builtins__"\n',
    "one that reads files": '[[transform]]\nname = "FDA"\nreference_images = ["/etc/passwd"]\n',
    "colours": '[[transform]]\nname = "ColorJitter"\n',
    "an unknown parameter": '[[transform]]\nname = "Rotate"\nlimits = 3\n',
    "a parameter of ours": '[[transform]]\nname = "Rotate"\nfill = 3\n',
    "a parameter of a wrong type": '[[transform]]\nname = "Rotate"\nlimit = "far"\n',
    "a parameter without end": '[[transform]]\nname = "Rotate"\nlimit = [0.0, inf]\n',
    "a chance of two": '[[transform]]\nname = "D4"\np = 2\n',
    "an empty group": "[[transform]]\none_of = []\n",
    "a group of zeros": '[[transform]]\none_of = [{ name = "D4", p = 0 }]\n',
    "a group in a group, without end": "[[transform]]\n" + "all_of = [{ " * 400 + "name = 1" + " }]" * 400 + "\n",
    "a date": '[[transform]]\nname = "Rotate"\nlimit = 2020-01-01\n',
    "a huge elastic field": '[[transform]]\nname = "ElasticTransform"\nalpha = 1e300\nsigma = 1e300\n',
    "a grid of too many cells": '[[transform]]\nname = "GridDistortion"\nnum_steps = 100000000\n',
    "a negative sigma": '[[transform]]\nname = "ElasticTransform"\nsigma = -5\n',
}


def test_photometric_recipes(trial: Any, some_of: Any) -> None:
    for case, text in some_of(VIEWS, 20).items():
        place = trial.fresh()
        (place / "mine.toml").write_text(text)
        trial(
            FAULT,
            f"views: {case}",
            [
                "embed",
                "--dataset",
                "synthetic",
                "--encoder",
                "random",
                "--cache",
                place / "cache",
                "--views",
                place / "mine.toml",
            ],
            naming=["mine.toml"],
        )
        assert not (place / "cache").exists()
    for name in ("identity", "d4-x", "a b", "ä", "..", ".toml", "-x", "a/../d4"):
        place = trial.fresh()
        (place / "a").mkdir()
        file = place / f"{name}.toml"
        file.write_text('[[transform]]\nname = "HEDJitter"\n')
        trial(
            FAULT,
            f"views called {name}",
            ["embed", "--dataset", "synthetic", "--encoder", "random", "--cache", place / "cache", "--views", file],
            naming=[file.name, name],
        )


def test_augmentations(trial: Any, some_of: Any) -> None:
    for case, text in some_of(MOTIONS, 8).items():
        place = trial.fresh()
        (place / "mine.toml").write_text(text)
        trial(
            FAULT,
            f"augmentation: {case}",
            ["train", "--dataset", "synthetic", "--cache", place / "cache", "--augmentation", place / "mine.toml"],
            naming=["mine.toml", "augmentation"],
            seconds=30,
        )


TABLE = '[ablation]\ntitle = "t"\ndatasets = ["synthetic"]\nbaseline = "a"\n[train]\nepochs = 1\n[[row]]\nname = "a"\n'

TABLES: dict[str, Callable[[str], str]] = {
    "no rows": lambda t: t.partition("[[row]]")[0],
    "a row without a name": lambda t: t.replace('name = "a"', 'stain = "none"'),
    "two rows of one name": lambda t: t + '[[row]]\nname = "a"\n',
    "a baseline that is no row": lambda t: t.replace('baseline = "a"', 'baseline = "b"'),
    "a data set that wanders": lambda t: t.replace('["synthetic"]', '["../x"]'),
    "data sets that are no list": lambda t: t.replace('["synthetic"]', '"synthetic"'),
    "data sets that are numbers": lambda t: t.replace('["synthetic"]', "[1]"),
    "folds that are no table": lambda t: t.replace("[train]", "folds = 3\n[train]"),
    "no folds": lambda t: t.replace("[train]", "folds = { synthetic = 0 }\n[train]"),
    "seeds that are text": lambda t: t.replace("[train]", 'seeds = ["a"]\n[train]'),
    "a seed that is negative": lambda t: t.replace("[train]", "seeds = [-1]\n[train]"),
    "an unknown key": lambda t: t.replace("[train]", 'shell = "touch pwned"\n[train]'),
    "a field that the plan sets": lambda t: t.replace("epochs = 1", "seed = 1"),
    "a row that is a number": lambda t: t.replace('[[row]]\nname = "a"', "").replace(
        "[ablation]", "row = 3\n[ablation]"
    ),
    "a grid that is a list": lambda t: t + "[[grid]]\nepochs = [1]\n",
    "a grid without values": lambda t: t + "[grid]\nepochs = []\n",
    "a grid of all there is": lambda t: (
        t
        + "[grid]\n"
        + "".join(
            f"{name} = [{', '.join(map(str, range(1, 200)))}]\n"
            for name in ("width", "epochs", "batch_size", "epoch_images")
        )
    ),
    "a stain that is none": lambda t: t + 'stain = "pink"\n',
    "published numbers of text": lambda t: t + 'published = { synthetic = { dice = "x" } }\n',
    "a title that is a list": lambda t: t.replace('title = "t"', "title = []"),
    "an ablation that is a number": lambda t: "ablation = 3\n",
    "rows of a wrong type": lambda t: t + "epochs = []\n",
}


def test_tables(trial: Any, some_of: Any) -> None:
    for case, change in some_of(TABLES, 12).items():
        place = trial.fresh()
        (place / "mine.toml").write_text(change(TABLE))
        trial(
            FAULT,
            f"table: {case}",
            [
                "ablate",
                place / "mine.toml",
                "--quick",
                "--cache",
                place / "cache",
                "--runs",
                place / "runs",
                "--out",
                place / "out",
            ],
            naming=["mine.toml"],
            seconds=30,
        )
