"""Stain normalisation in all stages: what the encoder gets, what the store keeps, and what can be combined."""

import json
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nucseg_pipeline.embed.stage as stage
from nucseg.data import normalise, open_dataset, prepare
from nucseg.data.official_splits import is_same_dataset, plain_name, stain_of
from nucseg.encoders import Encoder
from nucseg.encoders.preprocess import resize
from nucseg.errors import ConfigError, DataError
from nucseg_cache import Store
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import EmbedConfig, ReportConfig, TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.datasets.normalised import note_of, stain_normalised, unchanged_in
from nucseg_pipeline.embed.stage import EmbedResult, embed
from nucseg_pipeline.evaluation.scored_images import native_grid
from nucseg_pipeline.modelling.inference import Prediction
from nucseg_pipeline.report import stage as reporting
from nucseg_pipeline.report.stage import report
from nucseg_pipeline.train.stage import train
from tests.pipeline.embed.small_dataset import files_of, pixels, write_dataset

N_IMAGES, H, W = 6, 60, 48


class Recorder(Encoder):
    """An encoder that keeps its inputs, and is interrupted after a number of them."""

    identity = {"architecture": "recorder", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 2

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.stops_at = 10**9

    def run(self, images: Sequence[Any]) -> Any:
        if len(self.inputs) >= self.stops_at:
            raise KeyboardInterrupt
        self.inputs += images
        ramp = np.arange(64, dtype=np.float32)  # the guard refuses embeddings that are the same everywhere
        return np.stack([image.mean() / 256 + ramp * np.ones((256, 64, 1), np.float32) for image in images])

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(stage, "open_encoder", lambda *args, **options: made)
    return made


def tissue(number: int) -> Any:
    """Nuclei and stroma in two stains, of other colours in every image."""
    rng = np.random.default_rng(number)
    stains = np.array([[0.65, 0.25], [0.70, 0.87], [0.30, 0.43]]) + rng.uniform(-0.05, 0.05, (3, 2))
    amounts = np.stack([rng.uniform(0.1, 0.4, H * W) + nuclei(number).ravel(), rng.uniform(0.7, 1.2, H * W)])
    return (240 * np.exp(-stains @ amounts) - 1).T.reshape(H, W, 3).round().astype(np.uint8)


def nuclei(number: int) -> Any:
    mask = np.zeros((H, W), np.uint8)
    mask[10:22, 5:15], mask[30:45, 20 + number : 32 + number] = 1, 1
    return mask


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    for kind, draw in {"images": tissue, "masks": nuclei}.items():
        (folder / kind).mkdir(parents=True)
        for number in range(N_IMAGES):
            Image.fromarray(draw(number)).save(folder / kind / f"n [{number}] ü.png")
    return folder


def run(source: Path | None, cache: Path, **options: Any) -> EmbedResult:
    config = {"dataset": "mine", "stain": "macenko", "source": source, "encoder": "random", "cache": str(cache)}
    return embed(EmbedConfig(**{**config, **options}), lambda *_: None)


def blank(source: Path, number: int) -> bytes:
    """Make one image white, so that there is nothing to normalise; returns its file as it was."""
    file = source / "images" / f"n [{number}] ü.png"
    before = file.read_bytes()
    Image.fromarray(np.full((H, W, 3), 250, np.uint8)).save(file)
    return before


@pytest.mark.parametrize("stain", ["macenko", "reinhard"])
def test_encoder_and_store_get_the_normalised_image_and_the_digest_of_the_original(
    source: Path, tmp_path: Path, encoder: Recorder, stain: str
) -> None:
    result = run(source, tmp_path / "cache", stain=stain)

    store = Store.open(tmp_path / "cache" / f"mine@{stain}.zarr")
    assert (result.location, store.dataset, store.preparation["stain"]) == (store.location, f"mine@{stain}", stain)
    samples = store.read_samples(range(N_IMAGES))
    for number, (sample, given) in enumerate(zip(samples, encoder.inputs, strict=True)):
        expected = normalise(tissue(number), stain).image
        assert np.array_equal(given, resize(expected))
        assert not np.array_equal(given, resize(tissue(number)))
        prepared = prepare(expected, nuclei(number).astype(np.int32), np.zeros((H, W), np.bool_))
        assert np.array_equal(sample.image, prepared.image)
        assert np.array_equal(sample.instances > 0, prepared.instances > 0)
        assert sample.image_digest == sha256((source / "images" / f"n [{number}] ü.png").read_bytes()).digest()


def test_the_source_is_found_in_the_store_of_the_originals_which_stays_unchanged(
    source: Path, tmp_path: Path, encoder: Recorder
) -> None:
    plain = run(source, tmp_path, stain=None).location
    before = files_of(plain)
    assert Store.open(plain).preparation == {"side_px": "256", "stain": "none"}

    first = run(None, tmp_path)
    again = run(None, tmp_path, dataset="mine@macenko", stain=None)

    assert (first.n_encoded, again.n_encoded, again.n_embedded) == (N_IMAGES, 0, N_IMAGES)
    assert (first.location, again.location) == (str(tmp_path / "mine@macenko.zarr"),) * 2
    assert files_of(plain) == before


def test_a_store_of_other_images_is_not_added_to(
    source: Path, tmp_path: Path, encoder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Path(run(source, tmp_path).location)
    shutil.copytree(location, tmp_path / "copy.zarr")
    with pytest.raises(ConfigError, match=r"copy\.zarr holds mine@macenko prepared as .*to DATASET@STAIN\.zarr"):
        run(source, tmp_path, dataset="copy", stain=None)

    before = files_of(location)
    monkeypatch.setattr("nucseg.data.stain._VERSION", "2")
    with pytest.raises(ConfigError, match=r"'stain_version': '1'.*'stain_version': '2'.*another --cache"):
        run(source, tmp_path)
    assert files_of(location) == before


def test_images_with_nothing_to_normalise_are_noted_by_this_and_later_runs(
    source: Path, tmp_path: Path, encoder: Recorder
) -> None:
    was = blank(source, 1)
    blank(source, 4)
    unchanged = {"n [1] ü": "too little tissue", "n [4] ü": "too little tissue"}

    first = run(source, tmp_path)
    again = run(source, tmp_path)
    assert unchanged_in(first.notes) == unchanged_in(again.notes) == unchanged
    assert unchanged_in(Store.open(first.location).notes) == unchanged  # which every report shows
    assert np.array_equal(encoder.inputs[1], resize(np.full((H, W, 3), 250, np.uint8)))

    (source / "images" / "n [1] ü.png").write_bytes(was)
    assert unchanged_in(run(source, tmp_path).notes) == {"n [4] ü": "too little tissue"}
    (source / "images" / "n [4] ü.png").write_bytes(was)
    last = run(source, tmp_path)
    assert last.notes == tuple(Store.open(last.location).notes) == run(source, tmp_path / "other").notes


def test_an_interrupted_run_continues_and_ends_bit_equal_with_all_notes(
    source: Path, tmp_path: Path, encoder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 3, 5):
        blank(source, number)
    undisturbed = run(source, tmp_path / "undisturbed").location
    sync_samples = stage.sync_samples

    def stop_after(*args: Any) -> Any:
        sync_samples(*args)
        raise KeyboardInterrupt  # the samples are stored, but not yet the note on them

    monkeypatch.setattr(stage, "sync_samples", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "stopped")
    monkeypatch.setattr(stage, "sync_samples", sync_samples)
    for more in (2, 2):
        encoder.stops_at = len(encoder.inputs) + more
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "stopped")
    encoder.stops_at = 10**9
    last = run(source, tmp_path / "stopped")

    assert set(unchanged_in(last.notes)) == {"n [0] ü", "n [3] ü", "n [5] ü"}
    assert files_of(last.location) == files_of(undisturbed)


def test_a_note_can_be_read_back_whatever_the_ids() -> None:
    unchanged = {'a "b", c}: {': "one colour", "ü\n[1]": "no two stains"}
    other = "7 images are left in their own way."

    assert unchanged_in([other, *note_of(unchanged)]) == unchanged
    assert note_of({"a": "one colour"})[0].startswith("1 image is left in its own colours")
    assert (note_of({}), unchanged_in([other])) == ((), {})


@pytest.mark.parametrize(
    ("name", "plain", "stain"),
    [
        ("nuinsseg", "nuinsseg", "none"),
        ("nuinsseg@macenko", "nuinsseg", "macenko"),
        ("slides@2024", "slides@2024", "none"),
        ("slides@2024@reinhard", "slides@2024", "reinhard"),
        ("@macenko", "@macenko", "none"),
    ],
)
def test_only_a_stain_after_the_at_sign_is_a_preparation(name: str, plain: str, stain: str) -> None:
    assert (plain_name(name), stain_of(name)) == (plain, stain)
    assert is_same_dataset(name, plain)
    assert not is_same_dataset(name, "slides@2023")


def test_the_command_and_the_recipe_take_a_stain(source: Path, tmp_path: Path, encoder: Recorder) -> None:
    (tmp_path / "recipe.toml").write_text('[embed]\nstain = "reinhard"\n[train]\ndataset = "mine@reinhard"\n')
    options = ["--dataset", "mine", "--source", str(source), "--cache", str(tmp_path), "--encoder", "random"]

    by_option = CliRunner().invoke(app, ["embed", *options, "--stain", "macenko"])
    by_recipe = CliRunner().invoke(app, ["embed", *options, "--recipe", str(tmp_path / "recipe.toml")])
    refused = CliRunner().invoke(app, ["embed", *options, "--stain", "vahadane"])

    assert by_option.output.rstrip().endswith("mine@macenko.zarr"), by_option.output
    assert by_recipe.output.rstrip().endswith("mine@reinhard.zarr")
    assert (refused.exit_code, "none, white, macenko or reinhard" in " ".join(refused.output.split())) == (1, True)
    training = resolve(TrainConfig, load_recipe(tmp_path / "recipe.toml", "train"), {})
    assert training.dataset == "mine@reinhard"


def test_runs_with_and_without_normalisation_are_compared_on_the_native_grid(
    source: Path, tmp_path: Path, encoder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "page_text", lambda *_: "")  # takes longest, and adds nothing here
    runs = []
    for dataset in ("mine@macenko", "mine"):
        run(source, tmp_path, dataset=dataset, stain=None)
        config = {"cache": str(tmp_path), "fusion": "none", "width": 2, "epochs": 1, "batch_size": 2, "threads": 1}
        train(TrainConfig(dataset=dataset, split="kfold", run=tmp_path / dataset, **config))  # type: ignore[arg-type]
        runs.append(tmp_path / dataset)

    out = tmp_path / "report"
    report(ReportConfig(runs=tuple(runs), grid="native", out=out, n_images=0, n_resamples=50, cache=str(tmp_path)))

    summary = json.loads((out / "summary.json").read_text())
    assert summary["grid"] == "native grid"
    assert "mine@macenko" in (out / "summary.md").read_text()
    store = Store.open(tmp_path / "mine@macenko.zarr")
    prediction = Prediction(store.read_samples([store.row_of("n [2] ü")])[0], np.zeros((256, 256), np.float32))
    native = native_grid(store, ("n [2] ü",), None)(prediction)
    assert np.array_equal(native.image, normalise(tissue(2), "macenko").image)
    assert np.array_equal(native.instances > 0, nuclei(2) > 0)


@pytest.mark.parametrize("stain", ["none", "macenko"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_are_looked_at_without_decoding_the_image(tmp_path: Path, suffix: str, stain: str) -> None:
    folder = write_dataset(tmp_path / "slides", 1, size=(40, 30))
    first = folder / "images" / "000.png"
    image = first.with_suffix(suffix)
    Image.fromarray(pixels(folder, "000")).save(image, compression="tiff_lzw" if suffix == ".tif" else None)
    if image != first:
        first.unlink()
    entry = stain_normalised(open_dataset("folder", folder), stain).entries[0]
    facts = entry.read()[0].mask_facts
    content = bytearray(image.read_bytes())
    content[200:2000] = bytes(1800)
    image.write_bytes(content)

    assert facts.n_pieces == 1
    assert entry.read_mask_facts() == facts
    with pytest.raises(DataError, match="cannot be decoded"):
        entry.read()
