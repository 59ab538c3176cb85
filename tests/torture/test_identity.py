"""What was made from something else is never used in silence: it is refused by a message that says so, or made anew."""

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nucseg.data import prepare
from nucseg.encoders import Encoder, asked_identity
from nucseg.errors import NucsegError
from nucseg_cache import CacheError, Store
from nucseg_pipeline.config import EmbedConfig, TrainConfig, store_location
from nucseg_pipeline.embed.stage import EmbedResult, embed
from nucseg_pipeline.evaluation import test_sets
from nucseg_pipeline.evaluation.experiments import group_runs
from nucseg_pipeline.report.warnings import report_warnings
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.train.events import EpochDone, Event
from nucseg_pipeline.train.stage import train

N_IMAGES, SIDE_PX = 10, 64
OTHER = {"layer": "12", "input_px": "512", "preprocessing": "centred", "precision": "bfloat16"}

Change = Callable[["Bench"], None]


class WeighedEncoder(Encoder):
    """Tells embeddings from the pixels, the file of weights and all else that stands in its identity."""

    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 4

    def __init__(self, identity: dict[str, str]) -> None:
        self.identity = identity

    def resize(self, image: Any) -> Any:
        return image

    def run(self, images: Sequence[Any]) -> Any:
        return np.stack([expected(image, self.identity) for image in images])

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


def expected(image: Any, identity: dict[str, str]) -> Any:
    seed = zlib.crc32(image.tobytes() + json.dumps(sorted(identity.items())).encode())
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    return np.repeat(ramp + np.float32(seed / 2**30), 256, axis=0)


def draw(folder: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(N_IMAGES):
        mask = np.zeros((32, 32), np.uint8)
        mask[4:12, 4:12], mask[18:26, 14:24] = 1, 2
        pixels = random.integers(0, 90, (32, 32, 3)) + 120 * (mask > 0)[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


class Bench:
    """A data set, a file of weights, a cache and a run, all in one folder, to be meddled with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.cache = folder, folder / "source", folder / "cache"
        self.weights, self.run = folder / "encoder.onnx", folder / "run"
        self.fields: dict[str, str] = {}
        """What of the encoder's identity is other than it was."""

    def image(self, number: int) -> Path:
        return self.source / "images" / f"{number}.png"

    def embed(self, dataset: str = "mine", **options: Any) -> EmbedResult:
        config = {"source": self.source, "encoder": f"onnx:{self.weights}", "cache": str(self.cache), **options}
        identity = {**asked_identity(f"onnx:{self.weights}"), "layer": "output", "input_px": "1024",
                    "preprocessing": "as sam", "precision": "float32", **self.fields}  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nucseg_pipeline.embed.stage.open_encoder", lambda *a, **o: WeighedEncoder(identity))
            for module in ("embed.stage", "embed.image_reader"):  # smaller, so that trainings take seconds
                patch.setattr(f"nucseg_pipeline.{module}.SIDE_PX", SIDE_PX)
            patch.setattr("nucseg_pipeline.embed.sync.prepare", partial(prepare, side_px=SIDE_PX))
            return embed(EmbedConfig(dataset=dataset, **config), lambda done, total, what: None)

    def configuration(self, **options: Any) -> TrainConfig:
        given = {"dataset": "mine", "cache": str(self.cache), "encoder": f"onnx:{self.weights}", "width": 2,
                 "epochs": 2, "batch_size": 8, "device": "cpu", "threads": 1, "run": self.run, **options}  # fmt: skip
        return TrainConfig(**given)

    def resume(self, **options: Any) -> None:
        train(self.configuration(resume=True, **options))

    def store(self, mode: Any = "r") -> Store:
        return Store.open(store_location(str(self.cache), "mine"), mode=mode)

    def refuse_wrong_embeddings(self, result: EmbedResult) -> None:
        """Every present image has, under the key that was asked for, the embedding of its file as it is now."""
        store = self.store()
        present = [info for info in store.table if info.present]
        assert result.key is not None
        values = store.embeddings(result.key).read([info.row for info in present])
        identity = {name: value for name, value in result.key.fields.items() if name != "format"}
        assert {info.id for info in present} == {file.stem for file in (self.source / "images").iterdir()}
        for info, value in zip(present, values, strict=True):
            with Image.open(next((self.source / "images").glob(f"{info.id}.*"))) as image:
                right = expected(np.array(image), identity).astype(np.float16)
            assert np.array_equal(value, right), f"{info.id} has another one's embedding"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench whose run has finished one epoch of two; beside it, under `finished`, one that has finished both."""
    folder = tmp_path_factory.mktemp("bench") / "bench"
    for place in ("source", "other"):
        draw(folder / place, len(place))
    bench = Bench(folder)
    bench.weights.write_bytes(bytes(range(200)))
    bench.embed()

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(bench.configuration(), stop)
    shutil.copytree(bench.run, folder / "finished")
    train(bench.configuration(run=folder / "finished", resume=True))
    return folder


@pytest.fixture
def bench(built: Path, tmp_path: Path) -> Callable[[], Bench]:
    """Makes copies of that bench, each at a place of its own."""
    made: list[Path] = []

    def copy() -> Bench:
        folder = tmp_path / f"bench {len(made)}"
        made.append(shutil.copytree(built, folder))
        for run in ("run", "finished"):
            inputs = folder / run / "inputs.json"
            inputs.write_text(inputs.read_text().replace(str(built), str(folder)))
        return Bench(folder)

    return copy


# ---- what changes an image, and what does not


def resaved(bench: Bench) -> None:
    with Image.open(bench.image(3)) as image:
        pixels = np.array(image)
    Image.fromarray(pixels).save(bench.image(3), compress_level=0)


def repainted(bench: Bench) -> None:
    with Image.open(bench.image(3)) as image:
        pixels = np.array(image)
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(bench.image(3))


def swapped(bench: Bench) -> None:
    for old, new in ((1, 100), (2, 1), (100, 2)):
        bench.image(old).rename(bench.image(new))


def renamed(bench: Bench) -> None:
    for kind in ("images", "masks"):
        (bench.source / kind / "3.png").rename(bench.source / kind / "new name.png")


def replaced(bench: Bench) -> None:
    shutil.copy(bench.folder / "other/images/3.png", bench.image(3))


def mask_changed(bench: Bench) -> None:
    Image.fromarray(np.full((32, 32), 5, np.uint8)).save(bench.source / "masks/3.png")


def touched(bench: Bench) -> None:
    for file in bench.source.rglob("*.png"):
        file.touch()


def reordered(bench: Bench) -> None:
    """The same files at another place, written in another order."""
    moved = bench.folder / "moved"
    for file in sorted(bench.source.rglob("*.png"), reverse=True):
        target = moved / file.relative_to(bench.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.rmtree(bench.source)
    moved.rename(bench.source)


IMAGES: dict[str, tuple[Change, int, int]] = {
    "an image re-saved with equal pixels": (resaved, 1, 1),
    "one pixel of an image changed": (repainted, 1, 1),
    "two images swapped under their names": (swapped, 2, 2),
    "an image and its mask renamed": (renamed, 1, 0),
    "an image replaced by another": (replaced, 1, 1),
    "a mask changed": (mask_changed, 0, 1),
    "files touched and not changed": (touched, 0, 0),
    "a data set copied in another order": (reordered, 0, 0),
}
"""Fault -> what happens to the files, how many images `embed` encodes anew, how many it says have changed."""


@pytest.mark.parametrize("fault", IMAGES)
def test_images_that_changed_are_embedded_anew_and_no_others(fault: str, bench: Any, ledger: Any) -> None:
    change, n_encoded, n_changed = IMAGES[fault]
    here = bench()
    change(here)
    result = here.embed()
    here.refuse_wrong_embeddings(result)
    assert (result.n_encoded, result.sync.changed) == (n_encoded, n_changed)
    (ledger.detected if n_encoded or n_changed else ledger.survived)(fault)


# ---- what made an embedding


def other_weights(bench: Bench) -> None:
    bench.weights.write_bytes(bytes(200))


def half_of_other_weights(bench: Bench) -> None:
    content = bench.weights.read_bytes()
    bench.weights.write_bytes(content[:100] + bytes(100))


def other_field(name: str) -> Change:
    return lambda bench: bench.fields.update({name: OTHER[name]})


ENCODERS: dict[str, Change] = {
    "other weights in a file of the same name": other_weights,
    "a file of weights half replaced": half_of_other_weights,
    **{f"another {name.replace('_px', ' size')} of the encoder": other_field(name) for name in OTHER},
}


@pytest.mark.parametrize("fault", ENCODERS)
def test_another_encoder_never_gets_the_embeddings_of_the_first(fault: str, bench: Any, ledger: Any) -> None:
    here, changed_file = bench(), "weights" in fault
    first = here.embed()
    ENCODERS[fault](here)
    if changed_file:  # what the cache holds is not of this file
        with pytest.raises(CacheError, match=r"weights: cached \w{8}, asked for \w{8}"):
            train(here.configuration(run=here.folder / "new"))
    result = here.embed()
    here.refuse_wrong_embeddings(result)
    assert (result.n_encoded, result.key == first.key) == (N_IMAGES, False)
    if not changed_file:  # both answer to what a training asks for
        with pytest.raises(CacheError, match=r"2 embeddings .* match the request"):
            train(here.configuration(run=here.folder / "new"))
    ledger.detected(fault)


# ---- a store that is not what its name says


def another_data_set(bench: Bench) -> None:
    bench.embed("theirs", source=bench.folder / "other")
    shutil.rmtree(bench.cache / "mine.zarr")
    shutil.copytree(bench.cache / "theirs.zarr", bench.cache / "mine.zarr")


def normalised(bench: Bench) -> None:
    bench.embed("mine@reinhard")
    shutil.rmtree(bench.cache / "mine.zarr")
    shutil.copytree(bench.cache / "mine@reinhard.zarr", bench.cache / "mine.zarr")


STORES: dict[str, Change] = {
    "the store of another data set under this one's name": another_data_set,
    "a store of normalised images under the plain name": normalised,
}


@pytest.mark.parametrize("fault", STORES)
def test_a_store_under_another_ones_name_is_refused(fault: str, bench: Any, ledger: Any) -> None:
    here = bench()
    STORES[fault](here)
    for use in (here.embed, lambda: train(here.configuration(run=here.folder / "new")), here.resume):
        with pytest.raises(NucsegError, match=r"mine\.zarr holds .*(Give it the name|name it DATASET@STAIN)"):
            use()
    with pytest.raises(NucsegError, match=r"are not what they were when|is prepared as"):
        Run.open(here.folder / "finished")
    ledger.detected(fault)


def test_a_recipe_of_views_that_was_edited_under_its_name_is_refused(bench: Any, ledger: Any) -> None:
    here = bench()
    recipe = here.folder / "soft.toml"
    recipe.write_text('variants = 1\n[[transform]]\nname = "HEDJitter"\n')
    here.embed(views=str(recipe))
    recipe.write_text('variants = 1\nseed = 5\n[[transform]]\nname = "HEDJitter"\n')
    with pytest.raises(CacheError, match=r"(?s)made differently.*seed: cached 0, asked for 5.*another name"):
        here.embed(views=str(recipe))
    ledger.detected("a recipe of views edited under its name")


def test_an_image_that_changes_while_it_is_embedded_is_told(
    bench: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, forecast = bench(), __import__("nucseg_pipeline.embed.stage", fromlist=["estimate_disk"]).estimate_disk
    here.fields["layer"] = "12"

    def change_then_forecast(*args: Any) -> Any:
        repainted(here)
        return forecast(*args)

    with monkeypatch.context() as patch:
        patch.setattr("nucseg_pipeline.embed.stage.estimate_disk", change_then_forecast)
        with pytest.raises(NucsegError, match="3 was changed while it was being embedded"):
            here.embed()
    here.refuse_wrong_embeddings(here.embed())
    ledger.detected("an image changed while it was embedded")


# ---- a run whose makings have changed


def masks_changed(bench: Bench) -> None:
    for file in (bench.source / "masks").iterdir():
        Image.fromarray(np.full((32, 32), 5, np.uint8)).save(file)
    bench.embed()


def images_changed(bench: Bench) -> None:
    for file in (bench.folder / "other/images").iterdir():
        shutil.copy(file, bench.source / "images" / file.name)
    bench.embed()


def another_cache(bench: Bench) -> None:
    shutil.rmtree(bench.cache)
    bench.embed(source=bench.folder / "other")


def weights_changed(bench: Bench) -> None:
    other_weights(bench)
    bench.embed()


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def edit(bench: Bench) -> None:
        for run in ("run", "finished"):
            file = bench.folder / run / name
            if file.exists():
                content = json.loads(file.read_text())
                change(content)
                file.write_text(json.dumps(content))

    return edit


def configuration_edited(bench: Bench) -> None:
    for run in ("run", "finished"):
        file = bench.folder / run / "config.toml"
        file.write_text(file.read_text().replace("dropout = 0.3", "dropout = 0.1"))


def checkpoint_flipped(bench: Bench) -> None:
    for file in (bench.run / "last.pt", bench.folder / "finished/best.pt"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


RUNS: dict[str, tuple[Change, bool, bool]] = {
    "a run whose masks have changed since": (masks_changed, True, True),
    "a run whose images have changed since": (images_changed, True, True),
    "a run beside a cache of other images": (another_cache, True, True),
    "a run beside other weights of its encoder": (weights_changed, True, False),
    "a run whose split was edited": (edited("split.json", lambda c: c["test"].append(c["train"].pop())), True, True),
    "a run whose recorded digests were edited": (
        edited("inputs.json", lambda c: c["samples"].update({next(iter(c["samples"])): ["00", "00"]})), True, True),
    "a run whose configuration was edited": (configuration_edited, True, True),
    "a run whose threshold was edited": (edited("rule.json", lambda c: c.update(threshold=0.1)), False, True),
    "a run whose checkpoint has a flipped bit": (checkpoint_flipped, True, True),
}  # fmt: skip
"""Fault -> what happens, whether it concerns going on with a run, and a report of it."""


@pytest.mark.parametrize("fault", RUNS)
def test_a_run_whose_makings_have_changed_is_refused(fault: str, bench: Any, ledger: Any) -> None:
    change, concerns_resuming, concerns_report = RUNS[fault]
    here = bench()
    change(here)
    if concerns_resuming:
        before = here.run.joinpath("last.pt").read_bytes()
        with pytest.raises((NucsegError, CacheError), match=r"Put it back|Bring the .*file back|run `nucseg embed`"):
            here.resume(**({"dropout": 0.1} if change is configuration_edited else {}))
        assert here.run.joinpath("last.pt").read_bytes() == before
    if concerns_report:
        with pytest.raises(NucsegError, match=r"Put them back|Bring the .*file back"):
            Run.open(here.folder / "finished").network()
    else:  # the embeddings that guided it are there still, and taken by their key
        run = Run.open(here.folder / "finished")
        assert len(list(run.predict(run.split.test[:1], device="cpu"))) == 1
    ledger.detected(fault)


def test_what_does_not_stop_a_report_is_told_in_it(bench: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = bench()
    run = Run.open(here.folder / "finished")
    Image.fromarray(np.full((32, 32), 5, np.uint8)).save(here.source / "masks" / f"{run.split.train[0]}.png")
    here.embed()
    monkeypatch.setattr("nucseg_pipeline.report.warnings.code_digest", lambda: "f" * 64)

    again = Run.open(here.folder / "finished")
    told = "\n".join(
        report_warnings(test_sets.TestSet(again.store, {"a": again.split.test}, "", ()), group_runs({"a": again}))
    )

    first = run.split.train[0]
    assert "1 training or validation images have changed in the cache, or are gone, since the run was trained" in told
    assert f"(such as {first})" in told
    assert f"trained by other code of nucseg ({run.inputs.code[:8]}) than makes" in told
    ledger.detected("a report after an image that was learned from has changed")
    ledger.detected("a report by other code than trained")


def test_a_run_records_the_digest_of_everything_it_was_made_from(built: Path) -> None:
    folder = RunFolder(built / "finished")
    inputs, parts, store = folder.inputs(), folder.split(), Store.open(built / "cache/mine.zarr")

    digests = {info.id: [info.image_digest.hex(), info.mask_digest.hex()] for info in store.table}
    assert inputs.samples == {one: digests[one] for one in (*parts.train, *parts.validation, *parts.test)}
    assert len(inputs.samples) == N_IMAGES
    assert inputs.embedding["weights"] == asked_identity(f"onnx:{built / 'encoder.onnx'}")["weights"]
    assert inputs.embedding_hash == store.keys()[0].hash
    for digest in (inputs.split, inputs.configuration, inputs.code):
        assert len(bytes.fromhex(digest)) == 32
    assert set(folder.status()["files"]) == {"best.pt", "rule.json", "position.npy"}
    one_less = replace(inputs, split="0" * 64)
    assert one_less.fingerprint != inputs.fingerprint
