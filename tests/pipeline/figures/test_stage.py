"""The figures of trained runs: which files, of which images, and what the index says of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from nucseg.errors import ConfigError
from nucseg_cache import Key, Store
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import FiguresConfig
from nucseg_pipeline.figures.panels import ImageFigures, short_names
from nucseg_pipeline.figures.stage import FiguresResult, figures
from nucseg_pipeline.runs.run import Run
from tests.pipeline.conftest import ignore_everything

WIDTH_PX = 1440
"""4.8 inches at 300 dots an inch."""

Draw = Callable[..., FiguresResult]


@pytest.fixture
def draw(trained: Path, tmp_path: Path) -> Draw:
    def run(*runs: str, **wanted: object) -> FiguresResult:
        given = {"out": tmp_path / "figures", "device": "cpu", "n_images": 1, **wanted}
        return figures(FiguresConfig(runs=tuple(trained / name for name in runs), **given))

    return run


@pytest.fixture(scope="module")
def drawn(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> FiguresResult:
    """The figures of two runs, for tests that only look at them."""
    out = tmp_path_factory.mktemp("drawn") / "figures"
    return figures(FiguresConfig(runs=(trained / "guided", trained / "plain-f0"), out=out, device="cpu", n_images=2))


def by_dice(run: Run) -> list[str]:
    """The test images from the worst to the best foreground Dice, computed by scikit-learn."""
    dice = {}
    for prediction in run.predict(run.split.test, device="cpu"):
        counted = ~prediction.sample.ignore
        found = prediction.probability[counted] >= run.rule.threshold
        true = prediction.sample.instances[counted] > 0
        dice[prediction.sample.id] = f1_score(true, found, zero_division=1.0)
    return sorted(dice, key=lambda image_id: (dice[image_id], image_id))


def test_two_runs_make_levels_each_encoders_overlays_violins_and_an_index(drawn: FiguresResult, trained: Path) -> None:
    ranked = by_dice(Run.open(trained / "guided"))
    median, worst = (image_id.replace(" [", "-").rstrip("]") for image_id in (ranked[len(ranked) // 2], ranked[0]))

    assert [file.name for file in drawn.files] == [
        *(f"encoders-{median}.png", f"levels-guided-{median}.png", f"levels-plain-f0-{median}.png"),
        *(f"encoders-{worst}.png", f"levels-guided-{worst}.png", f"levels-plain-f0-{worst}.png"),
        *("overlays.png", "violins.png", "README.md"),
    ]
    assert {file.name for file in drawn.folder.iterdir()} == {file.name for file in drawn.files}


def test_every_figure_opens_at_the_width_of_a_page(drawn: FiguresResult) -> None:
    for file in drawn.files[:-1]:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.std() > 5
        if file.name.startswith(("levels", "encoders")):
            assert pixels.shape[1] == WIDTH_PX


def test_the_index_says_how_what_and_of_whom(drawn: FiguresResult, trained: Path) -> None:
    text = (drawn.folder / "README.md").read_text()
    guided = next(line for line in text.splitlines() if line.startswith("- **levels-guided"))
    plain = next(line for line in text.splitlines() if line.startswith("- **levels-plain"))

    assert (
        f"nucseg figures {trained / 'guided'} {trained / 'plain-f0'} --n-images 2 --out {drawn.folder} --device cpu"
        in text
    )
    assert all(f"**{file.name}**" in text for file in drawn.files[:-1])
    assert "fusion xgfb, width 2, fold 0, seed 0, encoder: architecture random" in text
    assert "fusion none, width 2, fold 0, seed 0, encoder: none" in text
    assert "(h) after fusion" in guided
    assert guided.count("% of the variance") == 8
    assert plain.count("% of the variance") == 5
    assert ": median" in text
    assert ": worst" in text
    assert "drawn for a test" in text  # what the encoder says of itself
    assert "drawn for a test" in drawn.notes


def test_named_images_are_shown_by_the_same_bytes_every_time(draw: Draw, trained: Path) -> None:
    image_id = Run.open(trained / "guided").split.test[1]
    first = draw("guided", images=(image_id,), format="svg")
    content = {file: file.read_bytes() for file in first.files}

    again = draw("guided", images=(image_id,), format="svg")

    stem = image_id.replace(" [", "-").rstrip("]")
    assert [file.name for file in first.files[:2]] == [f"encoders-{stem}.svg", f"levels-{stem}.svg"]
    assert f"--image '{image_id}'" in first.files[-1].read_text()
    assert {file: file.read_bytes() for file in again.files} == content


def test_every_encoder_of_the_store_is_drawn_published_ones_in_order(draw: Draw, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "cache", tmp_path / "cache")
    store = Store.open(tmp_path / "cache" / "synthetic.zarr", mode="r+")
    parts = Run.open(trained / "plain-f0").split
    for name, ids in (("vit_h", parts.test), ("vit_b", parts.test), ("vit_l", parts.train[:1])):
        rows = [store.row_of(image_id) for image_id in ids]
        values = np.random.default_rng(0).normal(size=(len(rows), 256, 64, 64)).astype(np.float32)
        store.embeddings(Key({"architecture": name, "format": "f16"})).write(rows, values)

    result = draw("plain-f0", cache=str(tmp_path / "cache"))

    caption = next(line for line in result.files[-1].read_text().splitlines() if "**encoders" in line)
    # vit_l has not embedded the image that is shown
    assert [caption.partition(f"({letter}) ")[2].split()[0].strip(",") for letter in "cde"] == [
        *("vit_b", "vit_h", "random")
    ]
    assert "vit_l" not in caption


def test_folds_are_one_column_and_the_command_tells_which_files_it_wrote(trained: Path, tmp_path: Path) -> None:
    runs = [trained / "plain-f0", trained / "plain-f1"]
    words = ["figures", *runs, "--n-images", 1, "--device", "cpu", "--out", tmp_path / "out"]

    result = CliRunner().invoke(app, [str(word) for word in words])

    assert result.exit_code == 0, result.output
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {line for line in result.stdout.splitlines() if line.endswith((".png", ".md"))} == written
    assert f"figures: {tmp_path / 'out'}" in result.stdout
    assert "note: drawn for a test" in " ".join(result.stderr.split())
    assert len([name for name in written if name.startswith("levels-")]) == 1
    text = (tmp_path / "out" / "README.md").read_text()
    tested = {image_id for run in runs for image_id in Run.open(run).split.test}
    assert f"Foreground Dice of each of {len(tested)} test images" in text
    assert "plain-f1 (of plain): trained on synthetic" in text
    assert "no embedding, concatenation or fusion" in text


def test_images_whose_names_differ_in_special_letters_alone_have_files_of_their_own() -> None:
    figures = ImageFigures(SimpleNamespace(), (), "cpu", dict.fromkeys(["a b", "a/b", "a-b", "//"], ""), {})

    assert list(figures.stems.values()) == ["a-b", "a-b-1", "a-b-2", "unnamed"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ([{"architecture": "vit_b"}, {"architecture": "vit_h"}], ["vit_b", "vit_h"]),
        (
            [{"architecture": "vit_b", "precision": p} for p in ("float32", "bfloat16")] + [{"architecture": "vit_l"}],
            ["vit_b float32", "vit_b bfloat16", "vit_l"],
        ),
        ([{"architecture": "onnx", "weights": "901f2ffd16bf"}], ["onnx 901f2ffd"]),
    ],
)
def test_encoders_are_named_by_the_fields_that_differ(fields: list[dict[str, str]], names: list[str]) -> None:
    assert short_names([Key({"format": "f16", **own}) for own in fields]) == names


def test_encoders_that_differ_where_a_name_is_cut_have_names_of_their_own() -> None:
    keys = [Key({"format": "f16", "architecture": "onnx", "weights": f"901f2ffd{end}"}) for end in "ab"]

    assert len(set(short_names(keys))) == 2


def test_an_image_that_is_unknown_or_was_fitted_to_is_refused(draw: Draw, trained: Path, tmp_path: Path) -> None:
    split = Run.open(trained / "guided").split

    with pytest.raises(ConfigError, match=r"no image 'image \[99\]'") as refused:
        draw("guided", images=(split.test[0], "image [99]"))
    assert any(repr(image_id) in str(refused.value) for image_id in split.test)
    with pytest.raises(ConfigError, match="training or validation part"):
        draw("guided", images=(split.train[0],))
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"runs": ()}, "at least one run, and each run only once; got none"),
        ({"runs": (Path("a"), Path("b/../a"))}, "each run only once"),
        ({"images": ("x", "x")}, "shown once"),
        ({"n_images": 0}, "n_images must be at least 1, got 0"),
        ({"format": "jpg"}, "png, pdf or svg, got 'jpg'"),
        ({"device": "gpu"}, "device must be"),
        ({"dataset": "../x"}, "dataset must be"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(wanted: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FiguresConfig(**{"runs": (Path("run"),), **wanted})


def test_runs_are_called_as_asked(draw: Draw) -> None:
    result = draw("guided", "plain-f0", names=("with SAM", "without"))

    index = (result.folder / "README.md").read_text()
    assert "- with SAM: trained on" in index
    assert "--name 'with SAM' --name without" in index
    assert any(file.name.startswith("levels-with-SAM-") for file in result.files)
    with pytest.raises(ConfigError, match="got 2 runs and the names only one"):
        draw("guided", "plain-f0", names=("only one",))


def test_an_image_in_which_every_pixel_is_ignored_is_not_drawn(draw: Draw, trained: Path, cache: Path) -> None:
    """micro-sam #1012: with a Dice of 1 it would be the best image."""
    image_id = Run.open(trained / "plain-f0").split.test[0]
    ignore_everything(Store.open(cache / "synthetic.zarr", mode="r+"), image_id)

    with pytest.raises(ConfigError, match=r"Every pixel of .* is ignored.*leave --image out"):
        draw("plain-f0", images=(image_id,), cache=str(cache))
    result = draw("plain-f0", cache=str(cache))
    assert any(f"not scored, because every pixel of them is ignored: {image_id}." in note for note in result.notes)
