"""The stage from files to advice, with encoders for which the right answer is known."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from nucseg.errors import ConfigError, DataError, EncoderError
from nucseg.replay import d4
from nucseg_cache import EmbeddingNotFound, Key, Store, StoreNotFound
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig, FidelityConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.fidelity.references import ImageEmbeddings, evaluate_colours
from nucseg_pipeline.fidelity.stage import FidelityResult, fidelity

SIDE, N_GROUPS = 64, 10
PATTERN = np.random.default_rng(7).normal(size=(256, 64, 64)).astype(np.float32)
"""Added by the encoders below at every cell, independent of the image."""

TURNS = ("half turn", "transpose")
MOTIONS = (*TURNS, "d4, then affine")


class KnownEncoder(Encoder):
    """The content of each cell, which is one pixel, plus the pattern; the content of padding is zero."""

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


class Equivariant(KnownEncoder):
    """The content moves with the image."""

    def _content(self, grey: Any) -> Any:
        return np.linspace(-3, 3, 256, dtype=np.float32)[:, None, None] * grey


class Directional(KnownEncoder):
    """One channel per direction: turning the image also permutes the channels."""

    def _content(self, grey: Any) -> Any:
        content = torch.zeros(256, *grey.shape)
        for element in d4.ELEMENTS:
            turned = d4.apply(torch.from_numpy(grey), element)
            slope = turned - turned.roll((1, 2), dims=(0, 1))
            content[element] = 20 * d4.apply(slope, d4.inverse(element))
        return content.numpy()


class Blue(KnownEncoder):
    """The content is the blue of each cell, and the mean red of the image in all cells alike."""

    red_weight = 0.0

    def run(self, images: Sequence[Any]) -> Any:
        self.n_encoded += len(images)
        weights = np.linspace(-3, 3, 256, dtype=np.float32)[:, None, None]
        reds = [self.red_weight * image[..., 0].mean() for image in images]
        blues = [image[..., 2].astype(np.float32) / 127.5 - 1 for image in images]
        return np.stack([weights * blue + red + PATTERN for blue, red in zip(blues, reds, strict=True)]).astype("f4")


class BlueAndRed(Blue):
    """Another red adds the same to all cells."""

    red_weight = 0.1


def _grey(image: Any) -> Any:
    padded = np.zeros((SIDE, SIDE), np.float32)
    padded[: image.shape[0], : image.shape[1]] = image.astype(np.float32).mean(axis=2) / 127.5 - 1
    return padded


def draw(folder: Path, *, height: int = SIDE, coarse: int = 1, n_groups: int = N_GROUPS) -> Path:
    """Groups of an image and its negative, so that the mean content of every cell over whole groups is zero."""
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
def opened_as(encoder: KnownEncoder) -> Iterator[KnownEncoder]:
    """Use this encoder for every name, and count what it encodes from now on."""
    encoder.n_encoded = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (embedding_stage, stage):
            patch.setattr(module, "open_encoder", lambda *args, **options: encoder)
        yield encoder


def prepared(place: Path, encoder: KnownEncoder, **drawn: int) -> Path:
    """A folder with images and a cache of their embeddings."""
    source = draw(place / "slides", **drawn)
    with opened_as(encoder):
        embed_silently(dataset="mine", source=source, encoder="random", format="f32", cache=str(place / "cache"))
    return place


def embed_silently(**options: Any) -> None:
    embed(EmbedConfig(**options), lambda done, total, what: None)


@pytest.fixture(scope="module")
def following_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and cache of the equivariant encoder; tests must not change them."""
    return prepared(tmp_path_factory.mktemp("following"), Equivariant())


@pytest.fixture(scope="module")
def turning_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and cache of the directional encoder; tests must not change them."""
    return prepared(tmp_path_factory.mktemp("turning"), Directional())


@pytest.fixture(scope="module")
def turned(turning_place: Path, tmp_path_factory: pytest.TempPathFactory) -> FidelityResult:
    """The result for the directional encoder, without exact views in the store."""
    with opened_as(Directional()):
        return measure(turning_place, tmp_path_factory.mktemp("turned"), transforms=MOTIONS, calibration_images=1)


@pytest.fixture
def following() -> Iterator[KnownEncoder]:
    with opened_as(Equivariant()) as encoder:
        yield encoder


@pytest.fixture
def turning() -> Iterator[KnownEncoder]:
    with opened_as(Directional()) as encoder:
        yield encoder


def measure(place: Path, out: Path, **wanted: Any) -> FidelityResult:
    given = {
        "encoder": "random", "cache": str(place / "cache"), "out": out / "out", "images": 2, "calibration_images": 0,
        "transforms": TURNS, "photometric": ("none",),
    }  # fmt: skip
    return fidelity(FidelityConfig(dataset="mine", **{**given, **wanted}))


def error(result: FidelityResult, motion: str, replay: str) -> float:
    return result.lines[motion][replay]["error"].value


def colours(place: Path, out: Path, *names: str) -> Mapping[str, Any]:
    """The scores under these changes of colour alone."""
    return measure(place, out, transforms=("none",), photometric=names).colours


def content(result: FidelityResult) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((result.folder / "fidelity.json").read_text())
    return loaded


def test_corrected_replay_is_exact_for_an_equivariant_encoder_with_a_pattern(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    result = measure(following_place, tmp_path, calibration_images=1)

    for motion in TURNS:
        assert error(result, motion, "corrected") < 1e-9
        assert error(result, motion, "views") == 0
        assert error(result, motion, "plain") > 0.1
        assert error(result, motion, "unmoved") > 0.1
    assert "use replay corrected" in result.advice[0]
    assert "not clearly better" in result.advice[0]
    assert following.n_encoded == 7 + 2 * len(TURNS) == content(result)["encodings"]["n"]


def test_learned_replay_is_recommended_for_directional_channels(turned: FidelityResult) -> None:
    for motion in TURNS:
        assert error(turned, motion, "learned") < 1e-5
        assert error(turned, motion, "corrected") > 0.05
    assert error(turned, "d4, then affine", "learned") == pytest.approx(
        error(turned, "d4, then affine", "views"), rel=1e-3
    )
    assert error(turned, "d4, then affine", "corrected") > error(turned, "d4, then affine", "learned")
    choice = content(turned)["choices"][0]
    assert (choice["replay"], choice["augmentation"]) == ("learned", "d4")
    assert choice["against"]["high"] < 0
    # the commands name the same store and embeddings
    trained = next(line for line in turned.advice if line.startswith("    nucseg train"))
    assert "--augmentation d4 --replay learned" in trained
    embedded = next(line for line in turned.advice if line.startswith("    nucseg embed"))
    assert "--views d4 --view-images" in embedded
    for line in (trained, embedded):
        assert "--dataset mine" in line
        assert "--encoder random" in line
        assert f"--cache {content(turned)['config']['cache']}" in line


def test_every_default_motion_is_reported_and_all_files_are_written(following: KnownEncoder, tmp_path: Path) -> None:
    result = measure(prepared(tmp_path, following, coarse=16), tmp_path, transforms=())

    written = content(result)
    assert len(result.lines) == 15
    assert set(written["lines"]) == set(result.lines)
    assert "learned" not in next(iter(result.lines.values()))
    for motion in ("affine", "elastic", "perspective", "resized crop", "grid distortion", "d4, then affine"):
        assert error(result, motion, "corrected") < 0.01 < error(result, motion, "plain")
        assert error(result, motion, "views") == pytest.approx(error(result, motion, "corrected"), abs=1e-6)
    first = "mean of the 7 turns and flips"
    turns = [line for line in result.lines if "flip" in line or "turn" in line or "transpose" in line][1:]
    assert error(result, first, "plain") == pytest.approx(np.mean([error(result, turn, "plain") for turn in turns]))
    assert {file.name for file in result.folder.iterdir()} == {file.name for file in result.files}
    for name in ("fidelity.png", "fidelity-example.png"):
        with Image.open(result.folder / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    text = (result.folder / "fidelity.md").read_text()
    assert all(f"| {line} |" in text for line in result.lines)
    assert written["key"]["hash"] in text
    assert str(tmp_path / "cache" / "mine.zarr") in text


def test_the_same_seed_gives_the_same_numbers(following_place: Path, following: KnownEncoder, tmp_path: Path) -> None:
    first, again = (content(measure(following_place, tmp_path, transforms=("affine",))) for _ in range(2))

    assert first["lines"] == again["lines"]
    assert {row["image"] for row in first["per_image"]} == set(first["images"])


def test_padding_of_images_that_are_not_square_is_not_measured(following: KnownEncoder, tmp_path: Path) -> None:
    result = measure(prepared(tmp_path, following, height=48), tmp_path)

    assert error(result, "half turn", "corrected") < 1e-9
    assert {row["n_cells"] for row in content(result)["per_image"]} == {48 * 64}
    assert any("2 of 2 images are not square" in note for note in result.notes)


def test_a_change_that_changes_no_pixel_has_no_error(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    file = tmp_path / "same.toml"
    file.write_text('[[transform]]\nname = "OpticalDensity"\nscale = [1.0, 1.0]\n')

    scores = colours(following_place, tmp_path, str(file))[str(file)]

    for column in ("cached", "cached, shifted"):
        assert scores[column]["error"].value == 0
        assert scores[column]["cosine"].value == pytest.approx(1)
        assert scores[column]["centred_cosine"].value == pytest.approx(1)


def test_a_change_to_which_the_encoder_is_blind_has_no_error(tmp_path: Path) -> None:
    with opened_as(Blue()) as encoder:
        place = prepared(tmp_path, encoder)
        scores = colours(place, tmp_path, "channels 15 %", "gray")

    assert scores["channels 15 %"]["cached"]["error"].value == 0
    assert scores["gray"]["cached"]["error"].value > 0.1


def test_a_change_that_shifts_all_cells_alike_has_no_error_without_the_shift(tmp_path: Path) -> None:
    with opened_as(BlueAndRed()) as encoder:
        place = prepared(tmp_path, encoder)
        scores = colours(place, tmp_path, "channels 15 %")["channels 15 %"]

    assert scores["cached"]["error"].value > 0.1
    assert scores["cached, shifted"]["error"].value == pytest.approx(0, abs=1e-9)
    assert scores["cached, shifted"]["centred_cosine"].value == pytest.approx(1)


def test_the_error_is_that_of_the_encoders_response_to_the_brightness(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    result = measure(following_place, tmp_path, transforms=("none",), photometric=("density x0.5",))

    squared_error = squared_error_shifted = squared_spread = 0.0
    for image_id in content(result)["images"]:
        native = np.array(Image.open(following_place / "slides" / "images" / f"{image_id}.png"))
        brighter = np.rint(255 * np.sqrt(native / 255))
        weights = np.linspace(-3, 3, 256)[:, None, None]
        moved = weights * (brighter - native).mean(axis=2) / 127.5
        true = weights * (brighter.mean(axis=2) / 127.5 - 1) + PATTERN - PATTERN.mean(axis=(1, 2), keepdims=True)
        squared_error += (moved**2).sum()
        squared_error_shifted += ((moved - moved.mean(axis=(1, 2), keepdims=True)) ** 2).sum()
        squared_spread += (true**2).sum()
    scores = result.colours["density x0.5"]
    assert scores["cached"]["error"].value == pytest.approx(squared_error / squared_spread, rel=1e-4)
    assert scores["cached, shifted"]["error"].value == pytest.approx(squared_error_shifted / squared_spread, rel=1e-4)


def test_colours_alone_cost_one_encoding_per_image_and_change_and_are_reported(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    names = ("density x0.5", "gray", "stain")
    result = measure(following_place, tmp_path, transforms=("none",), photometric=names, calibration_images=1)

    written, text = content(result), (result.folder / "fidelity.md").read_text()
    assert following.n_encoded == 2 * len(names) == written["encodings"]["n"]
    assert (result.lines, written["lines"], written["choices"]) == ({}, {}, [])
    assert list(result.colours) == list(written["colours"]) == list(names)
    assert "| gray | stain and colour |" in text
    assert "Motions" not in text
    assert {row["transform"] for row in written["per_image"]} == set(names)
    for name in ("fidelity.png", "fidelity-example.png"):
        with Image.open(result.folder / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_padding_of_images_that_are_not_square_is_not_measured_under_colours(
    following: KnownEncoder, tmp_path: Path
) -> None:
    result = measure(prepared(tmp_path, following, height=48), tmp_path, transforms=("none",), photometric=("gray",))

    assert {row["n_cells"] for row in content(result)["per_image"]} == {48 * 64}


def test_a_mild_recipe_is_recommended_for_training_and_a_strong_one_as_views(
    turning_place: Path, turning: KnownEncoder, tmp_path: Path
) -> None:
    white = tmp_path / "white.toml"
    white.write_text('[[transform]]\nname = "OpticalDensity"\nscale = [0.0, 0.0]\n')
    mild = tmp_path / "mild.toml"
    mild.write_text('[[transform]]\nname = "OpticalDensity"\nscale = [1.01, 1.01]\n')
    milder = tmp_path / "milder.toml"
    milder.write_text('[[transform]]\nname = "OpticalDensity"\nscale = [1.0, 1.0]\n')
    files = tuple(map(str, (white, milder, mild)))

    result = measure(turning_place, tmp_path, transforms=TURNS, photometric=files, calibration_images=1)

    choice = content(result)["colour_choice"]
    turns = np.mean([error(result, turn, "corrected") for turn in TURNS])
    assert choice["is_measured"]
    assert choice["limit"] == pytest.approx(turns / 2)
    assert choice["fitting"] == [str(milder), str(mild)]
    # of those that fit, the one that changes the images most, with the replay that fits the flips and turns
    assert choice["recipe"] == str(mild)
    (trained,) = (line for line in result.advice if f"--photometric {mild}" in line)
    assert trained.startswith("    nucseg train")
    assert "--augmentation d4 --replay learned" in trained
    (embedded,) = (line for line in result.advice if line.startswith("    nucseg embed") and "white" in line)
    assert "--views path/to/white.toml" in embedded
    assert any(line.startswith("    nucseg train") and "--views white" in line for line in result.advice)
    assert any("Each variant of white costs once 20 encodings" in line for line in result.advice)


def test_without_flips_and_turns_the_limit_for_colours_is_a_published_one(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    result = measure(following_place, tmp_path, transforms=("affine",), photometric=("density x0.7",))

    choice = content(result)["colour_choice"]
    assert (choice["is_measured"], choice["limit"]) == (False, 0.32)
    assert any("not measured here" in line for line in result.advice)
    assert choice["recipe"] == ""  # no recipe was measured
    assert not any("--photometric" in line for line in result.advice)


def test_exact_views_in_the_store_save_encodings(
    turned: FidelityResult, turning_place: Path, turning: KnownEncoder, tmp_path: Path
) -> None:
    without = content(turned)
    shutil.copytree(turning_place / "cache", tmp_path / "cache")
    store = Store.open(tmp_path / "cache" / "mine.zarr", mode="r+")
    (key,) = store.keys()
    used = [*without["images"], *without["calibration_images"]]
    natives = [np.array(Image.open(turning_place / "slides" / "images" / f"{image_id}.png")) for image_id in used]
    rows = [store.row_of(image_id) for image_id in used]
    for element in d4.ELEMENTS[1:]:
        moved = [d4.apply(torch.from_numpy(image).movedim(-1, 0), element).movedim(0, -1).numpy() for image in natives]
        store.embeddings(key, f"d4-{element}").write(rows, turning.encode(moved))
    turning.n_encoded = 0

    result = measure(tmp_path, tmp_path, transforms=MOTIONS, calibration_images=1)
    found = content(result)

    assert not any("--view-images" in line for line in result.advice)  # the fit needs no further views
    assert any("cost once 119 encodings" in line for line in result.advice)  # of the 17 other images
    assert turning.n_encoded == 2  # the bent ones
    assert found["exact_views_in_store"] == {"images": 2, "calibration_images": 1}
    assert found["lines"] == without["lines"]


def test_a_stopped_measurement_leaves_nothing(following_place: Path, following: KnownEncoder, tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    given = {"encoder": "random", "cache": str(following_place / "cache"), "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        fidelity(FidelityConfig(dataset="mine", transforms=TURNS, photometric=("none",), images=2, **given), stop)

    assert not list(tmp_path.iterdir())


def test_more_images_than_available_is_noted(following_place: Path, following: KnownEncoder, tmp_path: Path) -> None:
    result = measure(following_place, tmp_path, images=16, transforms=("transpose",))

    assert len(content(result)["images"]) == 4
    assert "The test part has 4 images, 16 were requested." in result.notes
    assert [note for note in result.notes if note.startswith("Only 4 images were measured")]


def test_colours_are_changed_a_batch_at_a_time() -> None:
    encoder = Blue()
    native = np.zeros((SIDE, SIDE, 3), np.uint8)
    image = ImageEmbeddings(native, {0: torch.from_numpy(encoder.run([native])[0])})
    encoded_before: list[int] = []

    def change(image: Any) -> Any:
        encoded_before.append(encoder.n_encoded)
        return image

    encoder.n_encoded = 0
    results = evaluate_colours(image, dict.fromkeys("abcdefg", change), encoder, torch.zeros(256), lambda n, s: None)

    assert [result.name for result in results] == list("abcdefg")
    assert encoded_before == [0, 0, 0, 3, 3, 3, 6]


def test_the_command_prints_errors_advice_and_the_folder(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    measured = "--dataset mine --encoder random --images 2 --calibration-images 0"
    changes = "--transform transpose --photometric stain"
    folders = f"--cache {following_place / 'cache'} --out {tmp_path / 'out'}"

    result = CliRunner().invoke(app, f"fidelity {measured} {changes} {folders}")

    assert result.exit_code == 0, result.output
    assert "transpose: unmoved " in result.stdout
    assert "use replay corrected" in result.stdout
    assert "stain: cached " in result.stdout
    assert "For colours, an embedding may stay" in result.stdout
    assert f"fidelity: {tmp_path / 'out'}" in result.stdout


def test_missing_stores_embeddings_motions_and_changes_are_errors_before_anything_is_encoded(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    with pytest.raises(StoreNotFound):
        measure(tmp_path, tmp_path)
    with pytest.raises(EmbeddingNotFound, match="vit_b"):
        measure(following_place, tmp_path, encoder="vit_b")
    with pytest.raises(ConfigError, match="No motion is called 'turn'"):
        measure(following_place, tmp_path, transforms=("turn",))
    with pytest.raises(ConfigError, match="No change of colour is called 'dark'"):
        measure(following_place, tmp_path, photometric=("dark",))
    assert following.n_encoded == 0
    assert not list(tmp_path.iterdir())


def test_changed_or_missing_native_images_are_errors(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    changed, gone = tmp_path / "changed", tmp_path / "gone"
    for folder in (changed, gone):
        shutil.copytree(following_place / "slides", folder)
    for file in (changed / "images").glob("*/*.png"):
        Image.new("RGB", (SIDE, SIDE)).save(file)
    for file in gone.glob("*/*/a.png"):
        file.unlink()

    with pytest.raises(DataError, match="is not the image that was embedded"):
        measure(following_place, tmp_path, source=changed)
    with pytest.raises(DataError, match=r"2 of 4 images .* are not in"):
        measure(following_place, tmp_path, source=gone, images=4)
    assert following.n_encoded == 0


def test_another_encoder_than_that_of_the_embeddings_is_refused(
    following_place: Path, following: KnownEncoder, tmp_path: Path
) -> None:
    following.identity = {**following.identity, "weights": "0123456789abcdef0123"}

    with pytest.raises(ConfigError, match=r"(?s)not made by this encoder.*weights"):
        measure(following_place, tmp_path)


def test_a_test_part_of_one_image_is_too_few(following: KnownEncoder, tmp_path: Path) -> None:
    source = draw(tmp_path / "slides", n_groups=5)
    for file in source.glob("*/*/b.png"):
        file.unlink()
    embed_silently(dataset="mine", source=source, encoder="random", cache=str(tmp_path / "cache"))

    with pytest.raises(ConfigError, match="has 1 of the 5 images"):
        measure(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"images": 1}, "images must be at least 2, got 1"), ({"images": 2**63}, "images must be below 9,223"),
     ({"calibration_images": -1}, "at least 0"), ({"transforms": ("d4", "d4")}, "once"),
     ({"photometric": ("stain", "stain")}, "once"), ({"photometric": ("none", "stain")}, "cannot be combined"),
     ({"transforms": ("d4", "none")}, "cannot be combined"),
     ({"transforms": ("none",), "photometric": ("none",)}, "nothing to measure"),
     ({"device": "gpu"}, "device"), ({"dataset": "a/b"}, "dataset")],
)  # fmt: skip
def test_an_invalid_configuration_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FidelityConfig(**{"dataset": "mine", **wrong})


@pytest.mark.shared
def test_on_real_images_corrected_replay_is_better_than_plain(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source, weights = shared / "data" / "nuinsseg", shared / "weights" / "mobile_sam_encoder.onnx"
    named = {"dataset": "nuinsseg", "encoder": f"onnx:{weights}", "cache": str(tmp_path), "threads": 1}
    embed_silently(source=source, limit=8, **named)

    result = fidelity(
        FidelityConfig(
            images=2, calibration_images=0, transforms=("transpose",), photometric=("density x0.7", "gray"),
            out=tmp_path / "out", **named,
        )
    )  # fmt: skip

    assert error(result, "transpose", "corrected") < 0.9 * error(result, "transpose", "plain")
    assert 0.5 < error(result, "transpose", "plain") < 2
    mild, strong = (result.colours[name]["cached"]["error"].value for name in ("density x0.7", "gray"))
    assert 0 < mild < strong < error(result, "transpose", "corrected")


def test_missing_weights_are_reported_before_native_images_are_read(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is drawn for a test: its images are not those of the data set of that name."""
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "none"))
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    key = Key({"architecture": "vit_b", "weights": "ab" * 16, "precision": "float32", "format": "f16"})
    store.embeddings(key, recorded={}).write(range(store.n_rows), np.ones((store.n_rows, 256, 64, 64), np.float32))
    config = FidelityConfig(dataset="synthetic", cache=str(cache), split="kfold", images=2, out=tmp_path / "out")

    with pytest.raises(EncoderError, match="No weights for vit_b"):
        fidelity(config)
