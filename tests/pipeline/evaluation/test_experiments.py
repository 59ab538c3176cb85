from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.evaluation.experiments import group_runs, joint_name, run_names, unguided_references
from nucseg_pipeline.runs.run import Run

SAMPLES = {"a": ("00", "01"), "b": ("02", "03")}


def run(encoder: str = "sam", samples: dict[str, tuple[str, str]] = SAMPLES, **wanted: Any) -> Run:
    given = {"dataset": "nuinsseg", "cache": "here", **wanted}
    inputs = SimpleNamespace(embedding={"architecture": encoder}, preparation={"side_px": "256"}, samples=samples)
    return cast(
        Run,
        SimpleNamespace(config=TrainConfig(**given), inputs=inputs, store=SimpleNamespace(dataset=given["dataset"])),
    )


def grouped(**runs: Run) -> dict[str, list[str]]:
    return {
        configuration.name: list(configuration.runs)
        for configuration in group_runs({k.replace("_", "-"): r for k, r in runs.items()})
    }


def test_folds_and_seeds_of_one_configuration_are_its_repeats() -> None:
    found = grouped(xgfb_f0=run(), xgfb_f1=run(fold=1), none=run(fusion="none"), xgfb_f0_s1=run(seed=1))

    assert found == {"xgfb": ["xgfb-f0", "xgfb-f1", "xgfb-f0-s1"], "none": ["none"]}


@pytest.mark.parametrize(
    "difference",
    [
        *({"width": 16}, {"split": "grouped"}, {"epochs": 7}, {"dataset": "conic"}, {"encoder": "another"}),
        *({"samples": {**SAMPLES, "c": ("04", "05")}}, {"samples": {**SAMPLES, "b": ("02", "ff")}}),
    ],
)
def test_any_other_difference_makes_another_configuration(difference: dict[str, Any]) -> None:
    assert grouped(a=run(), b=run(fold=1, **difference)) == {"a": ["a"], "b": ["b"]}


def test_where_and_on_what_a_run_was_trained_makes_no_difference() -> None:
    elsewhere = run(fold=1, cache="there", threads=3, device="cuda:1", preload="off", run=Path("x"))

    assert grouped(a_f0=run(), a_f1=elsewhere) == {"a": ["a-f0", "a-f1"]}


def test_two_runs_of_one_fold_and_seed_stay_apart() -> None:
    assert grouped(a=run(), again=run(), a_f1=run(fold=1)) == {"a": ["a", "a-f1"], "again": ["again"]}


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["guided", "guided-f1"], "guided"),
        (["guided-f1", "guided-f10"], "guided"),
        (["width8", "width8_seed3"], "width8"),
        (["nuinsseg-unet-none-f0-s0", "nuinsseg-unet-none-f1-s0"], "nuinsseg-unet-none"),
        (["glass", "glass-s1"], "glass"),
        (["one", "two"], "one"),
        (["a/xgfb fold 1", "a/xgfb fold 2"], "a/xgfb"),
    ],
)
def test_a_configuration_is_named_after_what_its_runs_have_in_common(names: list[str], common: str) -> None:
    (found,) = group_runs({name: run(fold=fold) for fold, name in enumerate(names)})

    assert found.name == common


def test_configurations_of_one_name_are_numbered() -> None:
    runs = {f"run-{n}": run(width=width, fold=fold) for n, (width, fold) in enumerate([(8, 0), (8, 1), (9, 0), (9, 1)])}

    assert [configuration.name for configuration in group_runs(runs)] == ["run (1)", "run (2)"]


def test_repeats_are_described_in_words() -> None:
    runs = {"a": run(), "b": run(fold=2), "c": run(seed=7)}

    assert group_runs(runs)[0].repeats == "3 runs: folds 0, 2, seeds 0, 7"
    assert group_runs({"a": run()})[0].repeats == ""


def test_runs_are_named_after_as_many_folders_as_it_takes() -> None:
    assert run_names([Path("/x/a/s0"), Path("/x/b/s0")]) == ["a/s0", "b/s0"]
    assert run_names([Path("/x/a/s0"), Path("/x/b/s1")]) == ["s0", "s1"]


@pytest.mark.parametrize(("baseline", "against"), [("a", "a"), ("d", "d"), ("b", "a")])
def test_guided_configurations_are_compared_with_the_baseline_or_the_first_without_guidance(
    baseline: str, against: str
) -> None:
    runs = {"a": run(fusion="none"), "b": run(), "c": run(width=8), "d": run(fusion="none", width=8)}

    assert unguided_references(group_runs(runs), baseline) == {"b": against, "c": against}
    assert unguided_references(group_runs({"a": run(), "b": run(width=8)}), "a") == {}


def test_a_folder_is_named_after_up_to_three_configurations() -> None:
    runs = {f"a/run {width}": run(width=width) for width in (8, 16, 24, 32)}
    configurations = group_runs(runs)

    assert joint_name(configurations[:2]) == "a-run-8-vs-a-run-16"
    assert joint_name(configurations) == "a-run-8-and-3-others"
