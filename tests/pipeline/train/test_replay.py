"""The replay of a run is learned from its own training rows, kept with it, and the same when it is resumed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from nucseg.errors import ConfigError
from nucseg.replay import Motions, Replay, d4
from nucseg.views.registry import D4_VIEWS
from nucseg_cache import Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.provenance import record_provenance
from nucseg_pipeline.runs.selection import Selection, rows_with_all_views
from nucseg_pipeline.train.events import Started
from nucseg_pipeline.train.replay import open_replay
from nucseg_pipeline.train.stage import train

IDS = tuple(f"image [{number}]" for number in range(12))
Configure = Callable[..., TrainConfig]


def channels_passed_on(embedding: np.ndarray, element: int) -> np.ndarray:
    """What a made-up encoder says of the moved image: the moved embedding, channels 2 to 7 rolled."""
    moved = d4.apply(torch.from_numpy(np.ascontiguousarray(embedding)), element).numpy().copy()
    moved[2:8] = np.roll(moved[2:8], 1 + element % 5, axis=0)
    moved[1] = embedding[1]  # the ramp is positional and stays
    return moved


@pytest.fixture(scope="module")
def with_orbits(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which six of the twelve rows have all eight orientations, and a seventh has some."""
    cache = shutil.copytree(pristine_cache, tmp_path_factory.mktemp("orbits") / "cache")
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    rows = [0, 2, 3, 5, 8, 11]
    values = store.embeddings(key).read(rows).astype(np.float32)
    for element, name in enumerate(D4_VIEWS, 1):
        moved = np.stack([channels_passed_on(embedding, element) for embedding in values])
        view = store.embeddings(key, name, described={"orientation": str(element)})
        view.write(rows if element == 7 else [*rows, 9], moved if element == 7 else np.concatenate([moved, moved[:1]]))
    return cache


def opened(config: TrainConfig, ids: tuple[str, ...] = IDS) -> tuple[Selection, EmbeddingDataset]:
    """What a run reads, and the rows of its training part, here of some ids."""
    selection = Selection.open(config)
    embeddings = None if selection.key is None else selection.store.embeddings(selection.key)
    return selection, EmbeddingDataset(selection.store, embeddings, ids)


def started(folder: Path, selection: Selection, learned_from: tuple[str, ...] = ()) -> RunFolder:
    """The folder of a run whose replay is learned from some images; it holds inputs.json alone."""
    folder.mkdir(exist_ok=True)
    (folder / "inputs.json").write_text(record_provenance(selection, {}, learned_from).to_json())
    return RunFolder(folder)


def test_rows_with_all_orientations_are_those_that_are_learned_from(with_orbits: Path) -> None:
    store = Store.open(with_orbits / "synthetic.zarr")
    assert rows_with_all_views(store, store.keys()[0], IDS) == [0, 2, 3, 5, 8, 11]
    assert rows_with_all_views(store, store.keys()[0], IDS[3:9]) == [3, 5, 8]


def test_the_learned_replay_gives_the_exact_views_of_rows_it_has_not_seen(
    with_orbits: Path, training: Configure, tmp_path: Path
) -> None:
    seen = ("image [0]", "image [2]", "image [3]", "image [5]")
    selection, rows = opened(training(cache=str(with_orbits), replay="learned"), seen)
    store, key, folder = selection.store, selection.key, started(tmp_path / "run", selection, seen)
    replay = open_replay(folder, selection, rows, Accelerator(cpu=True))
    assert replay is not None
    unseen = torch.from_numpy(store.embeddings(key).read([8, 11]).astype(np.float32))

    for element, view in enumerate(D4_VIEWS, 1):
        true = torch.from_numpy(store.embeddings(key, view).read([8, 11]).astype(np.float32))
        learned, corrected = (
            float((compared(unseen, Motions.of_elements([element] * 2)) - true)[:, 2:8].square().mean())
            for compared in (replay, Replay(replay.pattern))
        )
        # channels of noise, rolled: unrelated without the mixing (2), and with it off by the noise of four rows' mean
        assert corrected > 1.8
        assert learned < 0.6 * corrected
    again = open_replay(folder, selection, rows, Accelerator(cpu=True))
    assert torch.equal(again.mixing, replay.mixing)


def test_a_run_learns_from_its_training_rows_and_resumes_with_what_it_learned(
    with_orbits: Path, training: Configure
) -> None:
    config = training(cache=str(with_orbits), replay="learned", split="kfold", epochs=1)
    train(config)
    kept = np.load(config.folder / "mixing.npy")
    assert kept.shape == (8, 256, 256)
    np.testing.assert_array_equal(kept[0], np.eye(256))
    assert np.abs(kept[1] - np.eye(256)).max() > 0.3

    parts, inputs = RunFolder(config.folder).split(), RunFolder(config.folder).inputs()
    assert inputs.learned_from
    assert set(inputs.learned_from) <= set(parts.train)

    before = (config.folder / "mixing.npy").stat().st_mtime_ns
    train(replace(config, epochs=2, resume=True))
    assert (config.folder / "mixing.npy").stat().st_mtime_ns == before

    (config.folder / "mixing.npy").unlink()
    train(replace(config, epochs=3, resume=True))
    np.testing.assert_array_equal(np.load(config.folder / "mixing.npy"), kept)


def test_a_run_on_views_that_were_made_again_in_another_way_is_not_resumed(
    pristine_cache: Path, training: Configure, tmp_path: Path
) -> None:
    cache = shutil.copytree(pristine_cache, tmp_path / "cache")
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()

    def embed_bright(scale: str) -> None:
        view = store.embeddings(key, "bright-1", described={"scale": scale}, images=True)
        values = store.embeddings(key).read(range(12)).astype(np.float32)
        view.write(range(12), values, np.stack([row.image for row in store.read_samples(range(12))]))

    embed_bright("1.1")
    config = training(cache=str(cache), views="bright", epochs=1)
    events: list[object] = []
    train(config, events.append)
    (first,) = [event for event in events if isinstance(event, Started)]
    assert "Every epoch uses each image as it is or as one of bright-1." in first.notes
    assert RunFolder(config.folder).inputs().views == {"bright-1": {"scale": "1.1"}}
    store.delete_group(f"{key.hash}/bright-1")
    embed_bright("1.2")
    with pytest.raises(ConfigError, match=r"views: recorded .*1\.1.*, now .*1\.2"):
        train(replace(config, epochs=2, resume=True))


def test_without_exact_views_learning_is_refused_before_anything_is_written(training: Configure) -> None:
    config = training(replay="learned")
    with pytest.raises(ConfigError, match=r"none of these .*embed --dataset synthetic --encoder random --views d4"):
        train(config)
    assert not config.folder.exists()


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ({"views": "d4"}, set()),
        ({"views": "d4", "augmentation": '[{"name": "Affine", "rotate": 10}]'}, {"position.npy"}),
        ({"replay": "learned", "fusion": "none"}, set()),
        ({"fusion": "none"}, set()),
        ({"augmentation": "none"}, set()),
        ({"replay": "plain"}, set()),
        ({"replay": "none"}, set()),
    ],
)
def test_only_what_a_run_replays_with_is_kept(
    with_orbits: Path, training: Configure, tmp_path: Path, wanted: dict[str, str], files: set[str]
) -> None:
    selection, rows = opened(training(cache=str(with_orbits), **wanted))
    folder = started(tmp_path / "run", selection)
    open_replay(folder, selection, rows, Accelerator(cpu=True))
    assert {path.name for path in folder.path.iterdir()} == files | {"inputs.json"}


def test_a_kept_array_that_is_not_what_was_written_for_the_run_is_refused(
    with_orbits: Path, training: Configure, tmp_path: Path
) -> None:
    selection, rows = opened(training(cache=str(with_orbits)))
    folder = started(tmp_path / "run", selection)
    file = folder.file("position.npy")
    open_replay(folder, selection, rows, Accelerator(cpu=True))
    sound = file.read_bytes()

    for damaged in (sound[:500] + bytes([sound[500] ^ 1]) + sound[501:], sound[:-32], b"\x93NUMPY, cut off"):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"position.npy cannot be read: .*Delete it"):
            open_replay(folder, selection, rows, Accelerator(cpu=True))
    file.write_bytes(sound)
    started(folder.path, selection, ("of another run",))
    with pytest.raises(ConfigError, match="not what was written for this run"):
        open_replay(folder, selection, rows, Accelerator(cpu=True))

    file.unlink()
    open_replay(folder, selection, rows, Accelerator(cpu=True))
    assert file.read_bytes()[:-32] == sound[:-32]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"views": "d4", "fusion": "none"}, "fusion none reads no embedding"),
        ({"views": "d4", "augmentation": "none"}, "augmentation none or replay none"),
        ({"views": "d4", "replay": "none"}, "augmentation none or replay none"),
        ({"views": "../d4"}, "views must be identity, d4 or the name"),
        ({"replay": "guess"}, "replay must be corrected, learned, plain or none"),
        ({"augmentation": "rotations"}, "no such file. Known: none, d4, papers"),
    ],
)
def test_what_does_not_go_together_is_refused(training: Configure, wanted: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training(**wanted)
