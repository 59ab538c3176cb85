"""A network that also learns how deep inside its nucleus a pixel lies, from its training to its report."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule, choose_rule, distance_map
from nucseg_pipeline.config import ReportConfig, TrainConfig
from nucseg_pipeline.modelling.inference import Prediction
from nucseg_pipeline.report import stage as report_stage
from nucseg_pipeline.report.image_layers import GalleryImage
from nucseg_pipeline.report.stage import ReportResult, report
from nucseg_pipeline.runs import run as runs
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.train import stage as train_stage
from nucseg_pipeline.train.events import EpochDone, Event
from nucseg_pipeline.train.stage import train

Configure = Callable[..., TrainConfig]
BUMPS = (2, 3)
"""Rows and columns of the bumps in the distance that stands for a network's."""


class Stopped(Exception):
    """What a test's callback raises where a user would press Ctrl-C."""


@pytest.fixture(scope="module")
def place(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in the head alone, `deep` and `plain`; not to be changed."""
    place = tmp_path_factory.mktemp("heads")
    for name, head in (("deep", "distance"), ("plain", "none")):
        train(
            TrainConfig(
                dataset="synthetic", cache=str(pristine_cache), fusion="none", encoder="random", width=2, epochs=5,
                batch_size=2, learning_rate=2e-2, device="cpu", threads=1, instance_head=head, run=place / name,
            )
        )  # fmt: skip
    return place


def test_the_distance_in_images_never_seen_is_learned(place: Path) -> None:
    run = Run.open(place / "deep")
    said, true, inside = [], [], []
    for prediction in run.predict(run.split.test):
        assert prediction.distance is not None
        instances = prediction.sample.instances[prediction.content]
        said.append(prediction.distance[prediction.content].ravel())
        true.append(distance_map(instances).ravel())
        inside.append(instances.ravel() > 0)
    distance, truth, nuclei = map(np.concatenate, (said, true, inside))

    assert np.corrcoef(distance, truth)[0, 1] > 0.5
    # not the foreground under another name: it also tells the middle of nuclei from their border
    assert np.corrcoef(distance[nuclei], truth[nuclei])[0, 1] > 0.3


def test_a_run_without_the_head_says_no_distance(place: Path) -> None:
    run = Run.open(place / "plain")

    assert all(prediction.distance is None for prediction in run.predict(run.split.test))


def test_a_stopped_run_ends_with_the_very_same_weights_and_rule(training: Configure, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise Stopped

    through, stopped = (training(instance_head="distance", run=tmp_path / name) for name in ("through", "stopped"))
    train(through)
    with pytest.raises(Stopped):
        train(stopped, stop)
    train(replace(stopped, resume=True))

    first, second = (RunFolder(config.folder).load_checkpoint("last.pt")["model"] for config in (through, stopped))
    assert {"distance.weight", "distance.bias"} <= set(first)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    for name in ("best.pt", "rule.json"):
        assert (through.folder / name).read_bytes() == (stopped.folder / name).read_bytes(), name


def test_the_rule_is_chosen_by_the_distances_of_the_best_network_on_the_validation_part(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def choose(*given: object) -> InstanceRule:
        seen.append(given)
        return choose_rule(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(train_stage, "choose_rule", choose)
    train(training(instance_head="distance"))

    run = Run.open(training().folder)
    predictions = list(run.predict(run.split.validation))
    expected = [prediction.distance[prediction.content] for prediction in predictions]
    ((*_, said),) = seen
    assert len(expected) == len(run.split.validation) > 0
    for distance, other in zip(said, expected, strict=True):
        np.testing.assert_allclose(distance, other, atol=1e-5)


@pytest.fixture
def bumpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network finds nucleus everywhere, and one that says a distance says `BUMPS`."""
    predict = runs.predict

    def bumps(prediction: Prediction) -> NDArray[np.float32]:
        waves = [
            np.abs(np.sin(np.pi * n * (np.arange(side.stop) + 0.5) / side.stop))
            for n, side in zip(BUMPS, prediction.content, strict=True)
        ]
        distance = np.zeros_like(prediction.probability)
        distance[prediction.content] = np.outer(*waves)
        return distance

    def said(*given: object, **named: object) -> Iterator[Prediction]:
        for prediction in predict(*given, **named):  # type: ignore[arg-type]
            distance = None if prediction.distance is None else bumps(prediction)
            yield replace(prediction, probability=np.ones_like(prediction.probability), distance=distance)

    monkeypatch.setattr(runs, "predict", said)


@pytest.fixture
def compare(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[ReportResult, GalleryImage]]:
    """Reports on both runs, without the page, which takes longest to make; and one image as the page would show it."""

    def make() -> tuple[ReportResult, GalleryImage]:
        shown: list[GalleryImage] = []
        monkeypatch.setattr(report_stage, "page_text", lambda *given: shown.extend(given[-1].images) or "")
        config = ReportConfig(
            runs=(place / "plain", place / "deep"), out=tmp_path / "report", n_images=1, n_resamples=50
        )
        return report(config), shown[0]

    return make


def test_a_run_with_the_head_is_compared_with_one_without(
    compare: Callable[[], tuple[ReportResult, GalleryImage]], place: Path
) -> None:
    result, _ = compare()

    summary = json.loads((result.folder / "summary.json").read_text())
    assert set(summary["runs"]) == {"plain", "deep"}
    assert [item.name for item in result.summaries[0].configurations] == ["plain", "deep"]
    for run in summary["runs"].values():
        assert run["metrics"]["dice"]["value"] > 0.3
    configs = [RunFolder(place / name).config() for name in ("plain", "deep")]
    assert [config.instance_head for config in configs] == ["none", "distance"]


@pytest.mark.usefixtures("bumpy")
def test_a_report_counts_and_shows_the_nuclei_of_the_predicted_distance(
    compare: Callable[[], tuple[ReportResult, GalleryImage]],
) -> None:
    result, shown = compare()

    found: dict[str, set[float]] = {"plain": set(), "deep": set()}
    with (result.folder / "per_image.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            found[line["run"]].add(float(line["n_predicted"]))
    assert found == {"plain": {1}, "deep": {BUMPS[0] * BUMPS[1]}}
    assert {name: drawn.max() for name, drawn in shown.instances.items()} == {"plain": 1, "deep": BUMPS[0] * BUMPS[1]}


def test_a_head_that_is_not_known_is_refused_before_anything_is_written(training: Configure) -> None:
    with pytest.raises(ConfigError, match=r"'watershed'.*distance"):
        train(training(instance_head="watershed"))
    assert not training().folder.exists()
