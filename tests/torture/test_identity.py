"""Embeddings and runs of other inputs are never used silently: a message refuses them, or they are recomputed."""

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
from nucseg_pipeline.embed import stage as embed_stage
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

Change = Callable[["Workspace"], None]


class IdentityEncoder(Encoder):
    """Its embeddings depend on the pixels and on every field of its identity."""

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


class Workspace:
    """A folder with a data set, encoder weights, a cache and a run, which a test may change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.cache = folder, folder / "source", folder / "cache"
        self.weights, self.run = folder / "encoder.onnx", folder / "run"
        self.fields: dict[str, str] = {}
        """Changed fields of the encoder's identity."""

    def image(self, number: int) -> Path:
        return self.source / "images" / f"{number}.png"

    def embed(self, dataset: str = "mine", **options: Any) -> EmbedResult:
        config = {"source": self.source, "encoder": f"onnx:{self.weights}", "cache": str(self.cache), **options}
        identity = {**asked_identity(f"onnx:{self.weights}"), "layer": "output", "input_px": "1024",
                    "preprocessing": "as sam", "precision": "float32", **self.fields}  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nucseg_pipeline.embed.stage.open_encoder", lambda *a, **o: IdentityEncoder(identity))
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

    def assert_right_embeddings(self, result: EmbedResult) -> None:
        """Assert that every image has the embedding of its current file, under the requested key."""
        store = self.store()
        present = [info for info in store.table if info.present]
        assert result.key is not None
        values = store.embeddings(result.key).read([info.row for info in present])
        identity = {name: value for name, value in result.key.fields.items() if name != "format"}
        assert {info.id for info in present} == {file.stem for file in (self.source / "images").iterdir()}
        for info, value in zip(present, values, strict=True):
            with Image.open(next((self.source / "images").glob(f"{info.id}.*"))) as image:
                right = expected(np.array(image), identity).astype(np.float16)
            assert np.array_equal(value, right), f"{info.id} has a wrong embedding"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run of one epoch of two, and a second run, `finished`, of both."""
    folder = tmp_path_factory.mktemp("identity") / "workspace"
    for name in ("source", "other"):
        draw(folder / name, len(name))
    here = Workspace(folder)
    here.weights.write_bytes(bytes(range(200)))
    here.embed()

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(here.configuration(), stop)
    shutil.copytree(here.run, folder / "finished")
    train(here.configuration(run=folder / "finished", resume=True))
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Workspace:
    """A copy of that workspace."""
    folder = tmp_path / "workspace"
    shutil.copytree(built, folder)
    for run in ("run", "finished"):
        inputs = folder / run / "inputs.json"
        inputs.write_text(inputs.read_text().replace(str(built), str(folder)))
    return Workspace(folder)


# ---- changes of the data set


def save_again(here: Workspace) -> None:
    with Image.open(here.image(3)) as image:
        pixels = np.array(image)
    Image.fromarray(pixels).save(here.image(3), compress_level=0)


def repaint(here: Workspace) -> None:
    with Image.open(here.image(3)) as image:
        pixels = np.array(image)
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(here.image(3))


def swap(here: Workspace) -> None:
    for old, new in ((1, 100), (2, 1), (100, 2)):
        here.image(old).rename(here.image(new))


def rename(here: Workspace) -> None:
    for kind in ("images", "masks"):
        (here.source / kind / "3.png").rename(here.source / kind / "new name.png")


def replace_image(here: Workspace) -> None:
    shutil.copy(here.folder / "other/images/3.png", here.image(3))


def another_mask() -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 4:20] = 5
    return mask


def change_mask(here: Workspace) -> None:
    Image.fromarray(another_mask()).save(here.source / "masks/3.png")


def touch(here: Workspace) -> None:
    for file in here.source.rglob("*.png"):
        file.touch()


def reorder(here: Workspace) -> None:
    """Copy the files in another order, and replace the folder by the copy."""
    moved = here.folder / "moved"
    for file in sorted(here.source.rglob("*.png"), reverse=True):
        target = moved / file.relative_to(here.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.rmtree(here.source)
    moved.rename(here.source)


IMAGES: dict[str, tuple[Change, int, int]] = {
    "data set: image saved again with equal pixels": (save_again, 1, 1),
    "data set: one pixel of an image changed": (repaint, 1, 1),
    "data set: two images swapped": (swap, 2, 2),
    "data set: image and mask renamed": (rename, 1, 0),
    "data set: image replaced": (replace_image, 1, 1),
    "data set: mask changed": (change_mask, 0, 1),
    "data set: files touched but unchanged": (touch, 0, 0),
    "data set: copied in another order": (reorder, 0, 0),
}
"""Fault -> change of the files, images that `embed` encodes again, images that it reports as changed."""


@pytest.mark.parametrize("fault", IMAGES)
def test_exactly_the_changed_images_are_embedded_again(fault: str, here: Any, ledger: Any) -> None:
    change, n_encoded, n_changed = IMAGES[fault]
    change(here)
    result = here.embed()
    here.assert_right_embeddings(result)
    assert (result.n_encoded, result.sync.changed) == (n_encoded, n_changed)
    (ledger.detected if n_encoded or n_changed else ledger.survived)(fault)


# ---- changes of the encoder


def other_weights(here: Workspace) -> None:
    here.weights.write_bytes(bytes(200))


def half_of_other_weights(here: Workspace) -> None:
    content = here.weights.read_bytes()
    here.weights.write_bytes(content[:100] + bytes(100))


def other_field(name: str) -> Change:
    return lambda here: here.fields.update({name: OTHER[name]})


ENCODERS: dict[str, Change] = {
    "encoder: other weights in a file of the same name": other_weights,
    "encoder: weights file half overwritten": half_of_other_weights,
    **{f"encoder: other {name.replace('_px', ' size')}": other_field(name) for name in OTHER},
}


@pytest.mark.parametrize("fault", ENCODERS)
def test_embeddings_of_another_encoder_are_not_used(fault: str, here: Any, ledger: Any) -> None:
    changed_file = "weights" in fault
    first = here.embed()
    ENCODERS[fault](here)
    if changed_file:  # the cache has no embeddings of this file
        with pytest.raises(CacheError, match=r"weights: cached \w{8}, asked for \w{8}"):
            train(here.configuration(run=here.folder / "new"))
    result = here.embed()
    here.assert_right_embeddings(result)
    assert (result.n_encoded, result.key == first.key) == (N_IMAGES, False)
    if not changed_file:  # the request of `train` matches both
        with pytest.raises(CacheError, match=r"2 embeddings .* match the request"):
            train(here.configuration(run=here.folder / "new"))
    ledger.detected(fault)


# ---- stores that do not fit their name


def another_data_set(here: Workspace) -> None:
    here.embed("theirs", source=here.folder / "other")
    shutil.rmtree(here.cache / "mine.zarr")
    shutil.copytree(here.cache / "theirs.zarr", here.cache / "mine.zarr")


def normalised(here: Workspace) -> None:
    here.embed("mine@reinhard")
    shutil.rmtree(here.cache / "mine.zarr")
    shutil.copytree(here.cache / "mine@reinhard.zarr", here.cache / "mine.zarr")


STORES: dict[str, Change] = {
    "store: of another data set": another_data_set,
    "store: of normalised images under the plain name": normalised,
}


@pytest.mark.parametrize("fault", STORES)
def test_a_store_under_a_wrong_name_is_refused(fault: str, here: Any, ledger: Any) -> None:
    STORES[fault](here)
    for use in (here.embed, lambda: train(here.configuration(run=here.folder / "new")), here.resume):
        with pytest.raises(NucsegError, match=r"mine\.zarr holds .*(Rename it to match|rename it to DATASET@STAIN)"):
            use()
    with pytest.raises(NucsegError, match=r"are not what they were when|is prepared as"):
        Run.open(here.folder / "finished")
    ledger.detected(fault)


def test_views_edited_under_the_same_name_are_refused(here: Any, ledger: Any) -> None:
    recipe = here.folder / "soft.toml"
    recipe.write_text('variants = 1\n[[transform]]\nname = "HEDJitter"\n')
    here.embed(views=str(recipe))
    recipe.write_text('variants = 1\nseed = 5\n[[transform]]\nname = "HEDJitter"\n')
    with pytest.raises(CacheError, match=r"(?s)made differently.*seed: cached 0, asked for 5.*another name"):
        here.embed(views=str(recipe))
    ledger.detected("recipe: views edited under the same name")


def test_an_image_that_changes_while_it_is_embedded_is_reported(
    here: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.fields["layer"] = "12"
    estimate_disk = embed_stage.estimate_disk

    def change_then_estimate(*args: Any) -> Any:
        repaint(here)
        return estimate_disk(*args)

    with monkeypatch.context() as patch:
        patch.setattr("nucseg_pipeline.embed.stage.estimate_disk", change_then_estimate)
        with pytest.raises(NucsegError, match="3 was changed while it was being embedded"):
            here.embed()
    here.assert_right_embeddings(here.embed())
    ledger.detected("data set: image changed while it is embedded")


# ---- changes of what a run was trained on


def change_masks(here: Workspace) -> None:
    for file in (here.source / "masks").iterdir():
        Image.fromarray(another_mask()).save(file)
    here.embed()


def change_images(here: Workspace) -> None:
    for file in (here.folder / "other/images").iterdir():
        shutil.copy(file, here.source / "images" / file.name)
    here.embed()


def replace_cache(here: Workspace) -> None:
    shutil.rmtree(here.cache)
    here.embed(source=here.folder / "other")


def change_weights(here: Workspace) -> None:
    other_weights(here)
    here.embed()


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def change_file(here: Workspace) -> None:
        for run in ("run", "finished"):
            file = here.folder / run / name
            if file.exists():
                content = json.loads(file.read_text())
                change(content)
                file.write_text(json.dumps(content))

    return change_file


def edit_configuration(here: Workspace) -> None:
    for run in ("run", "finished"):
        file = here.folder / run / "config.toml"
        file.write_text(file.read_text().replace("dropout = 0.3", "dropout = 0.1"))


def flip_checkpoint(here: Workspace) -> None:
    for file in (here.run / "last.pt", here.folder / "finished/best.pt"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


RUNS: dict[str, tuple[Change, bool, bool]] = {
    "run: masks changed after training": (change_masks, True, True),
    "run: images changed after training": (change_images, True, True),
    "run: cache replaced by one of other images": (replace_cache, True, True),
    "run: weights of the encoder replaced": (change_weights, True, False),
    "run: split edited": (edit("split.json", lambda c: c["test"].append(c["train"].pop())), True, True),
    "run: recorded digests edited": (
        edit("inputs.json", lambda c: c["samples"].update({next(iter(c["samples"])): ["00", "00"]})), True, True),
    "run: configuration edited": (edit_configuration, True, True),
    "run: threshold edited": (edit("rule.json", lambda c: c.update(threshold=0.1)), False, True),
    "run: bit flipped in a checkpoint": (flip_checkpoint, True, True),
}  # fmt: skip
"""Fault -> the change, whether it prevents resuming the run, whether it prevents a report."""


@pytest.mark.parametrize("fault", RUNS)
def test_a_run_of_changed_inputs_is_refused(fault: str, here: Any, ledger: Any) -> None:
    change, prevents_resuming, prevents_report = RUNS[fault]
    change(here)
    if prevents_resuming:
        before = here.run.joinpath("last.pt").read_bytes()
        with pytest.raises((NucsegError, CacheError), match=r"Put it back|Bring the .*file back|run `nucseg embed "):
            here.resume(**({"dropout": 0.1} if change is edit_configuration else {}))
        assert here.run.joinpath("last.pt").read_bytes() == before
    if prevents_report:
        with pytest.raises(NucsegError, match=r"Put them back|Bring the .*file back"):
            Run.open(here.folder / "finished").network()
    else:  # its embeddings are still in the cache, under their key
        run = Run.open(here.folder / "finished")
        assert len(list(run.predict(run.split.test[:1], device="cpu"))) == 1
    ledger.detected(fault)


def test_changes_that_do_not_prevent_a_report_are_warnings_in_it(
    here: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(here.folder / "finished")
    Image.fromarray(another_mask()).save(here.source / "masks" / f"{run.split.train[0]}.png")
    here.embed()
    monkeypatch.setattr("nucseg_pipeline.report.warnings.code_digest", lambda: "f" * 64)

    again = Run.open(here.folder / "finished")
    test_set = test_sets.TestSet(again.store, {"a": again.split.test}, "", ())
    warnings = "\n".join(report_warnings(test_set, group_runs({"a": again})))

    assert "1 training or validation images have changed in the cache, or are gone" in warnings
    assert f"(such as {run.split.train[0]})" in warnings
    assert f"trained with another version of nucseg's code ({run.inputs.code[:8]}) than this report uses" in warnings
    ledger.detected("run: training image changed before the report")
    ledger.detected("run: reported by another version of the code")


def test_a_run_records_the_digests_of_all_its_inputs(built: Path) -> None:
    folder = RunFolder(built / "finished")
    inputs, parts, store = folder.inputs(), folder.split(), Store.open(built / "cache/mine.zarr")

    digests = {info.id: [info.image_digest.hex(), info.mask_digest.hex()] for info in store.table}
    assert inputs.samples == {
        image_id: digests[image_id] for image_id in (*parts.train, *parts.validation, *parts.test)
    }
    assert len(inputs.samples) == N_IMAGES
    assert inputs.embedding["weights"] == asked_identity(f"onnx:{built / 'encoder.onnx'}")["weights"]
    assert inputs.embedding_hash == store.keys()[0].hash
    for digest in (inputs.split, inputs.configuration, inputs.code):
        assert len(bytes.fromhex(digest)) == 32
    assert set(folder.status()["files"]) == {"best.pt", "rule.json", "position.npy"}
    changed = replace(inputs, split="0" * 64)
    assert changed.fingerprint != inputs.fingerprint
