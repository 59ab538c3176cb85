"""Which images a run is scored on, on its own data set and on others."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nucseg.errors import ConfigError
from nucseg_cache import Store, StoreNotFound
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.evaluation import test_sets
from nucseg_pipeline.evaluation.experiments import group_runs
from nucseg_pipeline.evaluation.test_sets import ALL_IMAGES, RANDOM, choose_images, external_test_set, own_test_set
from nucseg_pipeline.runs.run import Run

IDS = {"home": [f"h{n}" for n in range(10)], "away": [f"a{n}" for n in range(6)]}


def store(dataset: str, side_px: str = "256", digests: dict[str, bytes] | None = None) -> Store:
    table = [
        SimpleNamespace(
            id=image_id,
            group=f"{image_id[0]}{int(image_id[1]) // 2}",
            present=image_id != "a5",
            image_digest=(digests or {}).get(image_id, image_id.encode()),
        )
        for image_id in IDS[dataset]
    ]
    drawn = SimpleNamespace(
        dataset=dataset, location=f"/cache/{dataset}.zarr", preparation={"side_px": side_px}, table=table, notes=()
    )
    return cast(Store, drawn)


def run(test: Sequence[str] = ("h0", "h1"), dataset: str = "home", **wanted: Any) -> Run:
    train = tuple(image_id for image_id in IDS[dataset] if image_id not in test)
    drawn = SimpleNamespace(
        config=TrainConfig(dataset=dataset, cache="/cache", **wanted),
        store=store(dataset),
        split=SimpleNamespace(
            train=train[1:], validation=train[:1], test=tuple(test), protocol="official", notes=("leaks",)
        ),
        inputs=SimpleNamespace(
            embedding={},
            preparation={"side_px": "256"},
            samples={image_id: (image_id.encode().hex(), "") for image_id in IDS[dataset]},
        ),
    )
    return cast(Run, drawn)


def build(dataset: str | None, runs: dict[str, Run], cache: str | None = None) -> test_sets.TestSet:
    configurations = group_runs(runs)
    return external_test_set(dataset, configurations, cache) if dataset else own_test_set(configurations)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Store]:
    """The stores of the cache, by location; a test may change them."""
    stores = {"/cache/home.zarr": store("home"), "/cache/away.zarr": store("away")}

    def find(location: str) -> Store:
        if location not in stores:
            raise StoreNotFound(f"nothing at {location}")
        return stores[location]

    monkeypatch.setattr(test_sets, "Store", SimpleNamespace(open=find))
    return stores


def test_a_run_is_scored_on_its_own_test_part() -> None:
    test_set = build(None, {"a": run(), "b": run(width=8)})

    assert test_set.ids == {"a": ("h0", "h1"), "b": ("h0", "h1")}
    assert (test_set.protocol, test_set.notes) == ("official", ("leaks",))
    assert build("home", {"a": run()}).ids == {"a": ("h0", "h1")}


def test_folds_are_put_together_before_configurations_are_compared() -> None:
    folds = {"x-f0": run(), "x-f1": run(("h2", "h3"), fold=1), "y-f1": run(("h2", "h3"), fold=1, width=8)}

    with pytest.raises(ConfigError, match="2 images are in both, 2 only in x, 0 only in y-f1"):
        build(None, folds)
    test_set = build(None, {**folds, "y-f0": run(width=8)})
    assert test_set.ids["x-f1"] == ("h2", "h3")
    assert test_set.all_ids == ("h0", "h1", "h2", "h3")


def test_the_same_images_divided_in_another_way_are_not_compared() -> None:
    first = {"x-f0": run(("h0", "h1")), "x-f1": run(("h2", "h3"), fold=1)}
    other = {"y-f0": run(("h0", "h2"), width=8), "y-f1": run(("h1", "h3"), fold=1, width=8)}

    with pytest.raises(
        ConfigError, match=r"x \(protocol official fold 0, official fold 1\) and y .* split them differently"
    ):
        build(None, first | other)


def test_images_of_another_size_are_not_compared() -> None:
    small = run(width=8)
    small.inputs.preparation["side_px"] = "64"  # type: ignore[index]

    with pytest.raises(ConfigError, match="a was trained on images of 256 px and b on images of 64 px"):
        build(None, {"a": run(), "b": small})


def test_one_data_set_prepared_in_two_ways_is_one_data_set() -> None:
    """Each run reads the images as they were prepared for it; a report on stain normalisation needs this."""
    other = run(width=8)
    other.store.dataset = "home@macenko"  # type: ignore[misc]

    test_set = build(None, {"a": run(), "b": other})

    assert test_set.ids == {"a": ("h0", "h1"), "b": ("h0", "h1")}
    assert test_set.store_for(other) is other.store


def test_runs_of_different_data_sets_need_a_data_set_to_score_on() -> None:
    with pytest.raises(ConfigError, match=r"no test images in common.*--dataset home --dataset away"):
        build(None, {"a": run(), "b": run(("a0",), dataset="away")})


def test_across_domains_every_present_image_is_scored() -> None:
    test_set = build("away", {"a": run(), "b": run(width=8)})

    assert test_set.ids == dict.fromkeys("ab", ("a0", "a1", "a2", "a3", "a4"))
    assert test_set.protocol == ALL_IMAGES
    assert test_set.store.dataset == "away"
    assert "a, b: trained on home, not on away" in test_set.notes[0]


def test_other_runs_take_the_test_part_of_a_run_that_was_trained_on_the_data_set() -> None:
    test_set = build("away", {"a": run(), "b": run(("a0", "a1"), dataset="away")})

    assert test_set.ids == {"a": ("a0", "a1"), "b": ("a0", "a1")}
    assert test_set.protocol == "official"
    assert test_set.notes[0] == "leaks"


def test_a_training_file_is_left_out_under_any_name(opened: dict[str, Store]) -> None:
    # a1 is a copy of a training image; a2 of a test image, which no run was trained on
    opened["/cache/away.zarr"] = store("away", digests={"a1": b"h5", "a2": b"h0"})

    test_set = build("away", {"a": run()})

    assert test_set.ids["a"] == ("a0", "a2", "a3", "a4")
    assert "1 images were left out" in test_set.notes[1]
    assert "a1" in test_set.notes[1]
    assert "1 of the remaining 4 images share a group" in test_set.notes[2]  # a0 is of the same slide as a1


def test_nothing_left_to_score_on_is_an_error(opened: dict[str, Store]) -> None:
    opened["/cache/away.zarr"] = store("away", digests=dict.fromkeys(IDS["away"], b"h5"))

    with pytest.raises(ConfigError, match=r"All 5 images .* were used for training"):
        build("away", {"a": run()})


def test_a_data_set_that_is_not_in_the_cache_comes_with_the_way_to_make_it() -> None:
    with pytest.raises(ConfigError, match=r"/cache/conic\.zarr.*nucseg embed --dataset conic .*--encoder vit_b"):
        build("conic", {"a": run()})
    with pytest.raises(ConfigError, match=r"/moved/away\.zarr"):
        build("away", {"a": run()}, cache="/moved")


def test_a_data_set_is_found_in_the_cache_of_any_run_and_in_the_default_one(
    opened: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_CACHE", "/default")
    opened["/default/away.zarr"] = opened.pop("/cache/away.zarr")

    assert build("away", {"a": run()}).all_ids == ("a0", "a1", "a2", "a3", "a4")
    del opened["/default/away.zarr"]
    with pytest.raises(ConfigError, match=r"/cache/away\.zarr or /default/away\.zarr"):
        build("away", {"a": run()})


def test_images_prepared_in_another_way_are_refused(opened: dict[str, Store]) -> None:
    opened["/cache/away.zarr"] = store("away", side_px="512")

    with pytest.raises(ConfigError, match=r"a was trained on images prepared as .*256.*512"):
        build("away", {"a": run()})


DICE = {f"i{n}": n / 10 for n in range(7)}


def test_gain_and_loss_are_chosen_after_the_ranks_and_an_image_may_have_two_reasons() -> None:
    gains = {**dict.fromkeys(DICE, 0.0), "i0": 0.4, "i5": -0.2}

    assert dict(list(choose_images(DICE, 5, 0, gains).items())[:4]) == {
        "i3": "median",
        "i0": "worst, largest gain",
        "i6": "best",
        "i5": "largest loss",
    }
    assert list(choose_images(DICE, 7, 0, gains).values()).count(RANDOM) == 3
    assert list(choose_images(DICE, 7, 0, dict.fromkeys(DICE, 0.0)).values()).count(RANDOM) == 4  # no gain and no loss


def test_no_more_images_are_chosen_than_asked_for() -> None:
    assert choose_images(DICE, 0, 0) == {}
    assert list(choose_images(DICE, 2, 0).values()) == ["median", "worst"]
    assert choose_images({"only": 0.5}, 3, 0) == {"only": "the only image"}
