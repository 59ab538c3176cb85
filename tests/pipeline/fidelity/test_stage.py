"""The stage from files to advice, with encoders of which the right answer is known."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nucseg_pipeline.embed.stage as embedding_stage
import nucseg_pipeline.fidelity.stage as stage
from nucseg.encoders import Encoder
from nucseg.errors import ConfigError, DataError
from nucseg.replay import d4
from nucseg_cache import EmbeddingNotFound, Store, StoreNotFound
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig, FidelityConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.fidelity.stage import FidelityResult, fidelity

SIDE, N_GROUPS = 64, 10
PATTERN = np.random.default_rng(7).normal(size=(256, 64, 64)).astype(np.float32)
"""What the encoders below add at every place of the grid, whatever the image."""

TURNS = ("half turn", "transpose")
MOVES = (*TURNS, "d4, then affine")


class Known(Encoder):
    """Content of each cell, which is a pixel here, plus the pattern; padding has no content."""

    identity = {"architecture": "random", "seed": "0", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 3
    n_encoded = 0

    def resize(self, image: Any) -> Any:
        return image  # its input has the size of the images

    def run(self, images: Sequence[Any]) -> Any:
        self.n_encoded += len(images)
        return np.stack([self._content(_grey(image)) + PATTERN for image in images])

    def _content(self, grey: Any) -> Any:
        raise NotImplementedError

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


class Following(Known):
    """Its content moves as the image does."""

    def _content(self, grey: Any) -> Any:
        return np.linspace(-3, 3, 256, dtype=np.float32)[:, None, None] * grey


class Turning(Known):
    """One channel for each direction: that of the turned image is another channel of the image, turned."""

    def _content(self, grey: Any) -> Any:
        content = torch.zeros(256, *grey.shape)
        for element in d4.ELEMENTS:
            turned = d4.apply(torch.from_numpy(grey), element)
            slope = turned - turned.roll((1, 2), dims=(0, 1))
            content[element] = 20 * d4.apply(slope, d4.inverse(element))
        return content.numpy()


def _grey(image: Any) -> Any:
    padded = np.zeros((SIDE, SIDE), np.float32)
    padded[: image.shape[0], : image.shape[1]] = image.astype(np.float32).mean(axis=2) / 127.5 - 1
    return padded


def draw(folder: Path, *, height: int = SIDE, coarse: int = 1, n_groups: int = N_GROUPS) -> Path:
    """Groups of an image and its negative: over whole groups, the mean content of every cell is none."""
    random = np.random.default_rng(0)
    for group in range(n_groups):
        size = (SIDE // coarse, height // coarse)
        noise = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(noise).resize((SIDE, height), Image.Resampling.BICUBIC))
        for name, image in (("a", smooth), ("b", 255 - smooth)):
            for kind, content in (("images", image), ("masks", np.eye(height, SIDE, dtype=np.uint8))):
                file = folder / kind / f"slide {group}" / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(file)
    return folder


@contextmanager
def opened_as(known: Known) -> Iterator[Known]:
    """Puts an encoder in the place of the one that is opened by name, and counts what it encodes from now on."""
    known.n_encoded = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (embedding_stage, stage):
            patch.setattr(module, "open_encoder", lambda *args, **options: known)
        yield known


def prepared(place: Path, known: Known, **drawn: int) -> Path:
    """A folder of images with the store of their embeddings beside it."""
    source = draw(place / "slides", **drawn)
    with opened_as(known):
        embed_silently(dataset="mine", source=source, encoder="random", format="f32", cache=str(place / "cache"))
    return place


def embed_silently(**options: Any) -> None:
    embed(EmbedConfig(**options), lambda done, total, what: None)


@pytest.fixture(scope="module")
def following_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and store of the encoder whose content follows the image; not to be changed."""
    return prepared(tmp_path_factory.mktemp("following"), Following())


@pytest.fixture(scope="module")
def turning_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and store of the encoder whose channels turn; not to be changed."""
    return prepared(tmp_path_factory.mktemp("turning"), Turning())


@pytest.fixture(scope="module")
def turned(turning_place: Path, tmp_path_factory: pytest.TempPathFactory) -> FidelityResult:
    """What is measured of that encoder, without exact views in the store."""
    with opened_as(Turning()):
        return measure(turning_place, tmp_path_factory.mktemp("turned"), transforms=MOVES, calibration_images=1)


@pytest.fixture
def following() -> Iterator[Known]:
    with opened_as(Following()) as known:
        yield known


@pytest.fixture
def turning() -> Iterator[Known]:
    with opened_as(Turning()) as known:
        yield known


def measure(place: Path, out: Path, **wanted: Any) -> FidelityResult:
    given = {"encoder": "random", "cache": str(place / "cache"), "out": out / "out", "images": 2, "transforms": TURNS}
    return fidelity(FidelityConfig(dataset="mine", **{**given, "calibration_images": 0, **wanted}))


def error(result: FidelityResult, move: str, replay: str) -> float:
    return result.lines[move][replay]["error"].value


def content(result: FidelityResult) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((result.folder / "fidelity.json").read_text())
    return loaded


def test_content_that_follows_the_image_is_replayed_without_error_once_the_pattern_stays(
    following_place: Path, following: Known, tmp_path: Path
) -> None:
    result = measure(following_place, tmp_path, calibration_images=1)

    for move in TURNS:
        assert error(result, move, "corrected") < 1e-9
        assert error(result, move, "views") == 0
        assert error(result, move, "plain") > 0.1
        assert error(result, move, "unmoved") > 0.1
    assert "use replay corrected" in result.advice[0]
    assert "not clearly better" in result.advice[0]
    assert following.n_encoded == 7 + 2 * len(TURNS) == content(result)["encodings"]["n"]


def test_channels_that_turn_with_the_image_are_learned_and_then_recommended(turned: FidelityResult) -> None:
    for move in TURNS:
        assert error(turned, move, "learned") < 1e-5
        assert error(turned, move, "corrected") > 0.05
    assert error(turned, "d4, then affine", "learned") == pytest.approx(
        error(turned, "d4, then affine", "views"), rel=1e-3
    )
    assert error(turned, "d4, then affine", "corrected") > error(turned, "d4, then affine", "learned")
    choice = content(turned)["choices"][0]
    assert (choice["replay"], choice["augmentation"]) == ("learned", "d4")
    assert choice["against"]["high"] < 0
    # what decides which store and which embeddings are meant is in the commands too
    trained = next(line for line in turned.advice if line.startswith("    nucseg train"))
    assert trained.endswith("--augmentation d4 --replay learned")
    embedded = next(line for line in turned.advice if line.startswith("    nucseg embed"))
    assert "--views d4 --view-images" in embedded
    for line in (trained, embedded):
        assert "--dataset mine --encoder random" in line
        assert f"--cache {content(turned)['config']['cache']}" in line


def test_every_default_motion_is_a_line_and_every_file_is_there(following: Known, tmp_path: Path) -> None:
    result = measure(prepared(tmp_path, following, coarse=16), tmp_path, transforms=())

    written = content(result)
    assert len(result.lines) == 15
    assert set(written["lines"]) == set(result.lines)
    assert "learned" not in next(iter(result.lines.values()))
    for move in ("affine", "elastic", "perspective", "resized crop", "grid distortion", "d4, then affine"):
        assert error(result, move, "corrected") < 0.01 < error(result, move, "plain")
        assert error(result, move, "views") == pytest.approx(error(result, move, "corrected"), abs=1e-6)
    first = "mean of the 7 turns and flips"
    turns = [line for line in result.lines if "flip" in line or "turn" in line or "transpose" in line][1:]
    assert error(result, first, "plain") == pytest.approx(np.mean([error(result, one, "plain") for one in turns]))
    assert {file.name for file in result.folder.iterdir()} == {file.name for file in result.files}
    for name in ("fidelity.png", "fidelity-example.png"):
        with Image.open(result.folder / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    text = (result.folder / "fidelity.md").read_text()
    assert all(f"| {line} |" in text for line in result.lines)
    assert written["key"]["hash"] in text
    assert str(tmp_path / "cache" / "mine.zarr") in text


def test_the_same_seed_gives_the_same_numbers(following_place: Path, following: Known, tmp_path: Path) -> None:
    first, again = (content(measure(following_place, tmp_path, transforms=("affine",))) for _ in range(2))

    assert first["lines"] == again["lines"]
    assert {one["image"] for one in first["per_image"]} == set(first["images"])


def test_images_that_are_not_square_are_measured_where_they_are(following: Known, tmp_path: Path) -> None:
    result = measure(prepared(tmp_path, following, height=48), tmp_path)

    assert error(result, "half turn", "corrected") < 1e-9
    assert {one["n_cells"] for one in content(result)["per_image"]} == {48 * 64}
    assert any("2 of 2 images are not square" in note for note in result.notes)


def test_exact_views_in_the_store_save_encodings(
    turned: FidelityResult, turning_place: Path, turning: Known, tmp_path: Path
) -> None:
    without = content(turned)
    shutil.copytree(turning_place / "cache", tmp_path / "cache")
    store = Store.open(tmp_path / "cache" / "mine.zarr", mode="r+")
    (key,) = store.keys()
    used = [*without["images"], *without["calibration_images"]]
    natives = [np.array(Image.open(turning_place / "slides" / "images" / f"{one}.png")) for one in used]
    for element in d4.ELEMENTS[1:]:
        turned = [d4.apply(torch.from_numpy(one).movedim(-1, 0), element).movedim(0, -1).numpy() for one in natives]
        store.embeddings(key, f"d4-{element}").write([store.row_of(one) for one in used], turning.encode(turned))
    turning.n_encoded = 0

    result = measure(tmp_path, tmp_path, transforms=MOVES, calibration_images=1)
    found = content(result)

    assert not any("--view-images" in line for line in result.advice)  # what is learned from is there
    assert any("cost once 119 encodings" in line for line in result.advice)  # of the 17 other images
    assert turning.n_encoded == 2  # the bent ones
    assert found["exact_views_in_store"] == {"images": 2, "calibration_images": 1}
    assert found["lines"] == without["lines"]


def test_a_stopped_measurement_leaves_nothing(following_place: Path, following: Known, tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    given = {"encoder": "random", "cache": str(following_place / "cache"), "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        fidelity(FidelityConfig(dataset="mine", transforms=TURNS, images=2, **given), stop)

    assert not list(tmp_path.iterdir())


def test_more_images_than_there_are_is_told(following_place: Path, following: Known, tmp_path: Path) -> None:
    result = measure(following_place, tmp_path, images=16, transforms=("transpose",))

    assert len(content(result)["images"]) == 4
    assert "The test part holds 4 images, 16 were asked for." in result.notes


def test_the_command_prints_errors_advice_and_where_they_lie(
    following_place: Path, following: Known, tmp_path: Path
) -> None:
    options = [
        "--cache",
        following_place / "cache",
        "--out",
        tmp_path / "out",
        "--images",
        2,
        "--calibration-images",
        0,
    ]
    options += ["--transform", "transpose", "--encoder", "random"]

    result = CliRunner().invoke(app, ["fidelity", "--dataset", "mine", *map(str, options)])

    assert result.exit_code == 0, result.output
    assert "transpose: unmoved " in result.stdout
    assert "use replay corrected" in result.stdout
    assert f"fidelity: {tmp_path / 'out'}" in result.stdout


def test_what_cannot_be_measured_is_told_before_anything_is_encoded(
    following_place: Path, following: Known, tmp_path: Path
) -> None:
    with pytest.raises(StoreNotFound):
        measure(tmp_path, tmp_path)
    with pytest.raises(EmbeddingNotFound, match="vit_b"):
        measure(following_place, tmp_path, encoder="vit_b")
    with pytest.raises(ConfigError, match="No motion is called 'turn'"):
        measure(following_place, tmp_path, transforms=("turn",))
    assert following.n_encoded == 0
    assert not list(tmp_path.iterdir())


def test_images_that_were_changed_or_taken_away_are_told(
    following_place: Path, following: Known, tmp_path: Path
) -> None:
    changed, gone = tmp_path / "changed", tmp_path / "gone"
    for folder in (changed, gone):
        shutil.copytree(following_place / "slides", folder)
    for one in (changed / "images").glob("*/*.png"):
        Image.new("RGB", (SIDE, SIDE)).save(one)
    for one in gone.glob("*/*/a.png"):
        one.unlink()

    with pytest.raises(DataError, match="is not the image that was embedded"):
        measure(following_place, tmp_path, source=changed)
    with pytest.raises(DataError, match=r"2 of 4 images .* are not in"):
        measure(following_place, tmp_path, source=gone, images=4)
    assert following.n_encoded == 0


def test_another_encoder_than_that_of_the_embeddings_is_refused(
    following_place: Path, following: Known, tmp_path: Path
) -> None:
    following.identity = {**following.identity, "weights": "0123456789abcdef0123"}

    with pytest.raises(ConfigError, match=r"(?s)not made by this encoder.*weights"):
        measure(following_place, tmp_path)


def test_a_test_part_of_one_image_is_too_few(following: Known, tmp_path: Path) -> None:
    source = draw(tmp_path / "slides", n_groups=5)
    for one in source.glob("*/*/b.png"):
        one.unlink()
    embed_silently(dataset="mine", source=source, encoder="random", cache=str(tmp_path / "cache"))

    with pytest.raises(ConfigError, match="holds 1 of the 5 images"):
        measure(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"images": 1}, "at least 2"), ({"calibration_images": -1}, "at least 0"), ({"transforms": ("d4", "d4")}, "once"),
     ({"device": "gpu"}, "device"), ({"dataset": "a/b"}, "dataset")],
)  # fmt: skip
def test_a_configuration_that_means_nothing_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        FidelityConfig(**{"dataset": "mine", **wrong})


@pytest.mark.shared
def test_on_real_images_the_pattern_of_the_real_encoder_must_stay(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source, weights = shared / "data" / "nuinsseg", shared / "weights" / "mobile_sam_encoder.onnx"
    named = {"dataset": "nuinsseg", "encoder": f"onnx:{weights}", "cache": str(tmp_path), "threads": 1}
    embed_silently(source=source, limit=8, **named)

    result = fidelity(
        FidelityConfig(images=2, calibration_images=0, transforms=("transpose",), out=tmp_path / "out", **named)
    )

    assert error(result, "transpose", "corrected") < 0.9 * error(result, "transpose", "plain")
    assert 0.5 < error(result, "transpose", "plain") < 2
