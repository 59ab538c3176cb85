"""Distillation: the student sees what the teacher saw, its result is measured, and no finished epoch is lost."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nucseg.encoders import open_encoder
from nucseg.encoders.student.file import read_student
from nucseg.encoders.student.sizes import SIZES, StudentShape
from nucseg.errors import ConfigError, TrainingError
from nucseg.replay import d4
from nucseg.views.registry import IDENTITY
from nucseg_cache import EmbeddingNotFound, RowDamaged, StoreNotFound
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import DistillConfig, EmbedConfig
from nucseg_pipeline.distill import stage
from nucseg_pipeline.distill.dataset import DistillDataset, TargetScaler
from nucseg_pipeline.distill.evaluate import fit_scaler
from nucseg_pipeline.distill.folder import StudentFolder
from nucseg_pipeline.distill.stage import DistillResult, distill
from nucseg_pipeline.distill.trainer import DistillationLoss, StudentTrainer
from nucseg_pipeline.distill.training_sets import open_teacher_sets
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.runs.history import EpochRecord
from nucseg_pipeline.runs.run import TrainedRun
from tests.pipeline.conftest import CROPS

PLAIN = TargetScaler(torch.zeros(256), 1.0)
ONES = torch.ones(256, 64, 64)
Configure = Callable[..., DistillConfig]


def silent(done: int, total: int, what: str) -> None:
    """No progress."""


def stop(record: EpochRecord) -> None:
    """What a test does where a user would press Ctrl-C."""
    raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """The smallest size is smaller still."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SIZES, "small", StudentShape(channels=8, fine_blocks=1, coarse_blocks=1, positions=8))
        yield


@pytest.fixture(scope="module")
def base(taught: Path, instant_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> DistillConfig:
    """A distillation of seconds."""
    return DistillConfig(
        dataset=("synthetic",), cache=str(taught), teacher=instant_encoder, views=("parts",), size="small",
        split="kfold", epochs=2, batch_size=8, device="cpu", threads=1,
        out=tmp_path_factory.mktemp("students") / "student",
    )  # fmt: skip


@pytest.fixture
def distilling(base: DistillConfig, tmp_path: Path) -> Configure:
    """Configures such a distillation in a folder of its own; a test names what it wants otherwise."""
    return lambda **wanted: replace(base, **{"out": tmp_path / "student", **wanted})


@pytest.fixture(scope="module")
def finished(base: DistillConfig) -> DistillResult:
    """That distillation, undisturbed; not to be changed."""
    return distill(base, silent)


@pytest.fixture(scope="module")
def half_done(base: DistillConfig) -> Path:
    """The folder of the same distillation, stopped after its first epoch; not to be changed."""
    config = replace(base, out=base.folder.with_name("half"))
    with pytest.raises(KeyboardInterrupt):
        distill(config, silent, stop)
    return config.folder


@pytest.fixture
def copied(finished: DistillResult, tmp_path: Path) -> Path:
    """The finished distillation where `distilling` looks for it, to be changed."""
    return shutil.copytree(finished.folder, tmp_path / "student")


@pytest.fixture
def stopped(half_done: Path, tmp_path: Path) -> Path:
    """The half-done distillation where `distilling` looks for it, to be changed."""
    return shutil.copytree(half_done, tmp_path / "student")


def test_each_item_is_an_image_and_what_the_teacher_makes_of_that_very_image(
    distilling: Configure, instant_encoder: str
) -> None:
    sets = open_teacher_sets(distilling(views=()))
    items = DistillDataset(sets, "train", PLAIN, with_views=True)
    teacher = open_encoder(instant_encoder)
    n_train = len(sets[0].parts.train)
    assert len(items) == n_train * (1 + 7 + 2)
    assert len(set(items.ids)) == len(items)

    batch = items.read(range(12))

    for name, image, target in zip(items.ids, batch.images, batch.targets, strict=False):
        pixels = (image.numpy().transpose(1, 2, 0) * [58.395, 57.12, 57.375] + [123.675, 116.28, 103.53]).round()
        own = teacher.encode([pixels.astype(np.uint8)])[0]
        # the teacher saw the native image, twice as fine: they agree but for what was averaged away
        agreement = np.corrcoef(own.ravel(), target.numpy().ravel())[0, 1]
        assert agreement > 0.97, name
        for element in range(1, 8):
            turned = d4.apply(torch.from_numpy(own), element).numpy()
            assert np.corrcoef(turned.ravel(), target.numpy().ravel())[0, 1] < agreement - 0.02, (name, element)


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: pytest.TempPathFactory, instant_encoder: str) -> Path:
    """A cache with images half as high as wide, turned, in other colours and in parts, stored as whole numbers."""
    folder = tmp_path_factory.mktemp("oblong")
    (folder / "parts.toml").write_text(CROPS)
    rng = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    for number in range(6):
        coarse = rng.integers(60, 200, (16, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((256, 128), Image.Resampling.BICUBIC).save(
            folder / "source" / "images" / f"{number}.png"
        )
        Image.fromarray(np.eye(128, 256, dtype=np.uint8)).save(folder / "source" / "masks" / f"{number}.png")
    for views in ("d4", "stain", str(folder / "parts.toml")):
        config = EmbedConfig(
            dataset="oblong", source=folder / "source", encoder=instant_encoder, views=views, format="i8",
            cache=str(folder), threads=1,
        )  # fmt: skip
        embed(config, silent)
    return folder


def test_padding_moves_with_an_oblong_image_and_does_not_count_and_a_part_has_none(
    oblong: Path, distilling: Configure, instant_encoder: str
) -> None:
    sets = open_teacher_sets(distilling(dataset=("oblong",), cache=str(oblong), views=()))
    items = DistillDataset(sets, "train", PLAIN, with_views=True)
    teacher = open_encoder(instant_encoder)
    views = [name.split("/")[1] for name in items.ids[:14]]
    assert sorted(views) == sorted(
        [IDENTITY, *(f"d4-{i}" for i in range(1, 8)), *(f"stain-{i}" for i in range(1, 5)), "parts-1", "parts-2"]
    )
    upper = torch.zeros(64, 64)
    upper[:32] = 1

    batch = items.read(range(14))

    for view, image, target, inside in zip(views, batch.images, batch.targets, batch.inside, strict=True):
        element = int(view[3:]) if view.startswith("d4") else 0
        expected = torch.ones(64, 64) if view.startswith("parts") else d4.apply(upper, element)
        assert torch.equal(inside[0], expected), view
        padding = (expected == 0).repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert not image[:, padding].any(), view
        pixels = (image.numpy().transpose(1, 2, 0) * [58.395, 57.12, 57.375] + [123.675, 116.28, 103.53]).round()
        own = teacher.encode([pixels.clip(0, 255).astype(np.uint8)])[0]
        agreement = np.corrcoef(own[:, expected > 0].ravel(), target.numpy()[:, expected > 0].ravel())[0, 1]
        assert agreement > 0.97, view


def test_data_sets_in_different_formats_are_learned_together(
    oblong: Path, taught: Path, distilling: Configure, tmp_path: Path
) -> None:
    cache = shutil.copytree(taught, tmp_path / "cache")
    shutil.copytree(oblong / "oblong.zarr", cache / "oblong.zarr")
    config = distilling(dataset=("synthetic", "oblong"), cache=str(cache), epochs=1)
    sets = open_teacher_sets(config)
    items = DistillDataset(sets, "train", PLAIN, with_views=True)
    n_first = len(sets[0].views_of(sets[0].parts.train))
    assert [teacher_set.key.fields["format"] for teacher_set in sets] == ["f16", "i8"]

    mixed = items.read([n_first, 0, n_first + 1, 1])  # of the second, the first, the second, the first

    for number, target in zip((n_first, 0, n_first + 1, 1), mixed.targets, strict=True):
        torch.testing.assert_close(items.read([number]).targets[0], target, atol=0, rtol=0)
    first = sets[1].store.row_of(sets[1].parts.train[0])
    np.testing.assert_allclose(mixed.targets[0], sets[1].embeddings.read([first])[0], atol=1e-6)
    result = distill(config, silent)
    assert set(result.fidelity) == {"synthetic", "oblong"}


def test_the_scaler_makes_the_mean_zero_and_the_mean_square_one(distilling: Configure) -> None:
    sets = open_teacher_sets(distilling())
    scaler, pattern = fit_scaler(sets)

    items = DistillDataset(sets, "train", scaler, with_views=False)
    targets = items.read(range(len(items))).targets.double()

    assert len(items) == len(sets[0].parts.train)
    torch.testing.assert_close(targets.mean(dim=(0, 2, 3)), torch.zeros(256).double(), atol=1e-4, rtol=0)
    assert float(targets.square().mean()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(targets.mean(dim=0).float(), scaler.scale(pattern), atol=1e-4, rtol=0)


def test_a_student_learns_what_its_teacher_sees_and_is_measured_as_it_will_be_used(
    distilling: Configure, instant_encoder: str
) -> None:
    config = distilling(epochs=8, batch_size=4, learning_rate=1e-2)
    rows: list[EpochRecord] = []

    result = distill(config, silent, rows.append)

    assert rows[-1].validation_loss < 0.9 * rows[0].validation_loss
    found = result.fidelity["synthetic"]
    assert found.student["error"].value < 0.8 * found.pattern["error"].value
    assert json.loads((result.folder / "fidelity.json").read_text())["weights"] == result.digest
    # by hand: the file, opened as any encoder, on native images of the test part
    teacher_set = open_teacher_sets(config)[0]
    store, ids = teacher_set.store, teacher_set.parts.test
    student = open_encoder(f"student:{result.file}", threads=1)
    images = [sample.image for sample in store.read_samples([store.row_of(sample_id) for sample_id in ids])]
    own = student.encode(images).astype(np.float64)
    true = np.stack([teacher_set.embeddings.read([store.row_of(sample_id)])[0] for sample_id in ids]).astype(np.float64)
    training = [teacher_set.embeddings.read([store.row_of(sample_id)])[0] for sample_id in teacher_set.parts.train]
    means = np.mean(training, axis=(0, 2, 3), dtype=np.float64)[:, None, None]
    error = ((own - true) ** 2).sum() / ((true - means) ** 2).sum()
    a, b = own - means, true - means
    cosines = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    assert found.student["error"].value == pytest.approx(error, rel=1e-3)
    assert found.student["centred_cosine"].value == pytest.approx(cosines.mean(), abs=1e-3)
    assert student.identity["weights"] == result.digest
    _, origin = read_student(result.file)
    assert origin.datasets["synthetic"]["n_train"] == len(teacher_set.parts.train)
    card = (result.folder / "card.md").read_text()
    assert f"| synthetic, {len(ids)} | student |" in card
    assert teacher_set.key.fields["weights"] in card


def test_a_stopped_distillation_resumes_and_ends_with_the_very_same_file(
    finished: DistillResult, distilling: Configure, stopped: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(distilling(), silent, stop)

    result = distill(distilling(), silent)

    assert (result.epochs_trained, result.epochs) == (0, 2)
    assert result.fidelity == finished.fidelity
    assert result.digest == finished.digest
    assert result.file.read_bytes() == finished.file.read_bytes()
    assert (result.folder / "epochs.csv").read_text().count("\n") == 3


def test_a_finished_student_is_never_written_again(
    finished: DistillResult, distilling: Configure, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    # another machine may measure another last digit, which is in the file: its digest would be another
    monkeypatch.setattr(stage, "evaluate", None)

    again = distill(distilling(), silent)

    assert again.epochs_trained == 0
    assert (again.digest, again.fidelity) == (finished.digest, finished.fidelity)
    assert {path.name: path.stat().st_mtime_ns for path in copied.iterdir()} == before


@pytest.mark.parametrize("name", ["student.safetensors", "fidelity.json", "run.json", "best.pt"])
def test_a_file_of_a_finished_distillation_that_was_edited_is_named(
    distilling: Configure, copied: Path, name: str
) -> None:
    file = copied / name
    content = file.read_bytes()
    if name == "run.json":
        file.write_bytes(content.replace(b'"best_epoch": ', b'"best_epoch": 1'))
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(ConfigError, match=rf"{name} cannot be read: (it was edited|its digest differs)"):
        distill(distilling(), silent)


def test_the_test_part_is_read_when_all_is_learned_and_not_before(
    taught: Path, distilling: Configure, tmp_path: Path
) -> None:
    cache = shutil.copytree(taught, tmp_path / "cache")
    teacher_set = open_teacher_sets(distilling(cache=str(cache)))[0]
    for sample_id in teacher_set.parts.test:
        row = teacher_set.store.row_of(sample_id)
        (file,) = cache.glob(f"synthetic.zarr/embeddings/*/identity/values/c/{row}/0/0/0")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    with pytest.raises(RowDamaged):
        distill(distilling(cache=str(cache)), silent)

    assert (tmp_path / "student" / "epochs.csv").read_text().count("\n") == 3
    assert not (tmp_path / "student" / "student.safetensors").exists()


def test_a_distillation_is_resumed_only_as_it_was(
    taught: Path, distilling: Configure, stopped: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"epochs: 2, asked for 3\n.*toml --out .*student\)"):
        distill(distilling(epochs=3), silent)
    cache = shutil.copytree(taught, tmp_path / "cache")
    shutil.rmtree(next(cache.glob("synthetic.zarr/embeddings/*/parts-2")))
    with pytest.raises(ConfigError, match=r"have changed since it was started: those of synthetic"):
        distill(distilling(cache=str(cache)), silent)
    for content in ("[", "[]", "{}", '{"format": 1}'):
        (stopped / "inputs.json").write_text(content)
        with pytest.raises(ConfigError, match=r"inputs\.json cannot be read"):
            distill(distilling(), silent)


def test_a_folder_with_something_else_is_not_written_to(distilling: Configure, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match=r"not a distillation: thesis\.txt"):
        distill(distilling(), silent)
    (tmp_path / "student" / "config.toml").write_text('[train]\ndataset = "synthetic"\n')
    (tmp_path / "student" / "run.json").touch()
    with pytest.raises(ConfigError, match=r"not a distillation: config\.toml has no table \[distill\]"):
        distill(distilling(), silent)


def test_a_distillation_is_not_taken_for_a_run(finished: DistillResult) -> None:
    with pytest.raises(ConfigError, match=r"not a run: config\.toml has no table \[train\]"):
        TrainedRun.opened(finished.folder)


def test_two_processes_do_not_distill_in_one_folder(distilling: Configure, tmp_path: Path) -> None:
    with (
        StudentFolder(tmp_path / "student").lock(),
        pytest.raises(ConfigError, match=r"Another process is distilling in .*student\. Wait for it"),
    ):
        distill(distilling(), silent)


def test_a_checkpoint_of_another_student_is_refused(
    distilling: Configure, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "small", StudentShape(channels=16, fine_blocks=1, coarse_blocks=1))

    with pytest.raises(ConfigError, match="checkpoint is of another network"):
        distill(distilling(), silent)


def test_what_cannot_be_learned_from_leaves_no_folder(taught: Path, distilling: Configure, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        distill(distilling(dataset=("elsewhere",)), silent)
    with pytest.raises(EmbeddingNotFound):
        distill(distilling(teacher="vit_b"), silent)
    with pytest.raises(ConfigError, match=r"no views 'stain'; .* it has: d4, parts\. Run .*--views stain"):
        distill(distilling(views=("stain",)), silent)

    assert not (tmp_path / "student").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        distill(distilling(out=tmp_path / "file" / "below"), silent)


def test_data_sets_of_two_teachers_are_not_mixed(distilling: Configure, tmp_path: Path) -> None:
    cache, source = tmp_path / "cache", tmp_path / "source"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (64, 64), (200, 40 * number, 90)).save(source / "images" / f"{number}.png")
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(source / "masks" / f"{number}.png")
    for name, precision in (("one", "float32"), ("other", "bfloat16")):
        asked = EmbedConfig(
            dataset=name, source=source, encoder="random", precision=precision, cache=str(cache), threads=1
        )
        embed(asked, silent)

    with pytest.raises(ConfigError, match=r"of one and other are not of one teacher(.|\n)*float32.*bfloat16"):
        distill(distilling(dataset=("one", "other"), cache=str(cache), teacher="random", views=()), silent)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"dataset": ()}, "must name at least one data set"),
        ({"dataset": ("a", "a")}, "must name at least one data set, and each once"),
        ({"size": "tiny"}, "size must be small, medium or large, got 'tiny'"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be no or bf16"),
        ({"views": ("d4", "d4")}, "views must name each kind of view once"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_an_option_that_cannot_be_is_refused(distilling: Configure, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        distilling(**wanted)


def test_a_rate_that_is_too_high_is_named(distilling: Configure) -> None:
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) in epoch 1, step .*--out.*lower --learning-rate"):
        distill(distilling(learning_rate=1e30), silent)


def test_an_epoch_that_diverges_keeps_those_before(
    distilling: Configure, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudentTrainer, "validate", lambda trainer: (float("nan"), None))

    with pytest.raises(TrainingError, match=r"validation loss became nan in epoch 2\. The .* epoch 1 is kept"):
        distill(distilling(), silent)

    assert (stopped / "epochs.csv").read_text().count("\n") == 2


def test_a_full_disk_stops_with_the_advice_for_a_distillation(
    distilling: Configure, stopped: Path, full_disk: Callable[[str], Any]
) -> None:
    with (
        full_disk("last.pt"),
        pytest.raises(TrainingError, match=r"No space left .*same command again") as full,
    ):
        distill(distilling(), silent)
    assert "--resume" not in str(full.value)


def test_weights_beyond_half_precision_are_named(distilling: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "fit_scaler", lambda sets: (TargetScaler(torch.zeros(256), 1e9), ONES))

    with pytest.raises(TrainingError, match=r"last\.weight went beyond what half precision holds, 65,504"):
        distill(distilling(epochs=1), silent)


def test_views_that_come_meanwhile_are_left_out_by_a_resumed_distillation(
    taught: Path, distilling: Configure, instant_encoder: str, tmp_path: Path
) -> None:
    cache = shutil.copytree(taught, tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        distill(distilling(cache=str(cache), views=()), silent, stop)
    later = EmbedConfig(
        dataset="synthetic",
        encoder=instant_encoder,
        views="stain",
        view_images=4,
        limit=10,
        cache=str(cache),
        threads=1,
    )
    embed(later, silent)
    notes: list[str] = []

    result = distill(distilling(cache=str(cache), views=()), silent, on_notes=notes.extend)

    assert result.epochs_trained == 1
    assert not any("stain" in note for note in notes)
    (teacher_set,) = open_teacher_sets(distilling(cache=str(cache), views=()))
    (note,) = (note for note in teacher_set.notes if "there for only a part" in note)
    assert "stain-1 of " in note


def test_too_little_memory_is_named(distilling: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(DistillationLoss, "forward", full)

    with pytest.raises(
        TrainingError, match=r"Out of memory in a .* step with 8 image\(s\).*smaller --batch-size or --size"
    ):
        distill(distilling(), silent)


def test_the_command_prints_its_result_and_what_the_recipe_records(
    taught: Path, instant_encoder: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[distill]\ndataset = ["synthetic"]\nsize = "small"\nsplit = "kfold"\nepochs = 1\n'
        'views = ["parts"]\nthreads = 1\n'
        '[record]\nweights = "0123"\nteacher = "4567"\n'
    )
    options = ["--teacher", instant_encoder, "--cache", str(taught), "--device", "cpu", "--out", str(tmp_path / "out")]

    result = CliRunner().invoke(app, ["distill", "--recipe", str(recipe), *options])

    assert result.exit_code == 0, result.output
    assert "epoch 1: training loss" in result.output
    assert "1 epoch trained; best of 1: epoch 1" in result.output
    assert "synthetic, 2 test images: error " in result.output
    assert "different from the one in the recipe (0123)" in result.output
    assert f"student: {tmp_path / 'out' / 'student.safetensors'}" in result.output


def test_without_a_data_set_the_command_says_what_is_missing() -> None:
    result = CliRunner().invoke(app, ["distill"])

    assert result.exit_code == 1
    assert "give --dataset" in result.output
