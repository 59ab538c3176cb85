"""Official splits equal those of the data sets' authors."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from nucseg.data import Split, SplitRow, open_dataset, protocol_names, split
from nucseg.data.splits import n_folds, protocol_summary
from nucseg.errors import ConfigError


def cryonuseg_rows(*organs: str, per_organ: int = 3) -> list[SplitRow]:
    ids = {f"Human_{organ}_{number:02}": organ for number in range(1, per_organ + 1) for organ in organs}
    return [SplitRow(id=id_, group=id_, stratum=organ) for id_, organ in ids.items()]


ORGANS = ("Thymus", "AdrenalGland", "Larynx", "LymphNodes", "Mediastinum", "Pancreas", "Pleura", "Skin", "Testis", "ag")


def conic_rows(names: Sequence[str]) -> list[SplitRow]:
    return [SplitRow(id=name, group=name.split("-")[0], stratum=name.split("_")[0]) for name in names]


@pytest.fixture(scope="module")
def patch_info() -> list[str]:
    """The names of 4981 patches, as unevenly spread over sources and cohorts as those of the release."""
    n_sources = {"consep": 41, "crag": 64, "dpath": 69, "glas": 101, "pannuke": 210}
    sources = [f"{cohort}_{number}" for cohort, count in n_sources.items() for number in range(1, count + 1)]
    rng = np.random.default_rng(0)
    n_patches = Counter(rng.choice(sources, 4981 - len(sources), p=rng.dirichlet(np.ones(len(sources)))))
    names = [f"{source}-{number:04}" for source in sources for number in range(1 + n_patches[source])]
    assert len(names) == 4981
    return names


def published_split(names: Sequence[str], fold: int) -> tuple[set[str], set[str]]:
    """The code of the challenge's baseline: training and validation names."""
    sources = np.unique([name.split("-")[0] for name in names])
    _, cohorts = np.unique([source.split("_")[0] for source in sources], return_inverse=True)
    splitter = StratifiedShuffleSplit(n_splits=10, train_size=0.8, test_size=0.2, random_state=5)
    for trial, indices in enumerate(splitter.split(sources, cohorts)):
        if trial == fold:
            train, valid = (
                {name for name in names if name.split("-")[0] in sources[part].tolist()} for part in indices
            )
    return train, valid


def sources_of(*parts: Sequence[str]) -> list[set[str]]:
    return [{id_.split("-")[0] for id_ in part} for part in parts]


def official(rows: Sequence[SplitRow], dataset: str, fold: int = 0, seed: int = 0) -> Split:
    return split(rows, dataset=dataset, protocol="official", fold=fold, seed=seed)


@pytest.mark.parametrize("dataset", ["cryonuseg", "cryonuseg@macenko"])
def test_each_fold_of_cryonuseg_leaves_one_organ_out(dataset) -> None:
    rows = cryonuseg_rows(*ORGANS)
    assert n_folds(rows, dataset=dataset, protocol="official") == 10

    for fold, organ in enumerate(sorted(ORGANS)):
        got = official(rows, dataset, fold, seed=fold)
        assert set(got.test) == {f"Human_{organ}_{number:02}" for number in (1, 2, 3)}
        assert (len(got.train), len(got.validation), got.protocol) == (23, 4, "official")
        assert got.notes == (
            f"CryoNuSeg: official rule on 30 of 30 images, 10 of 10 organs; fold {fold} leaves out {organ}.",
        )


def test_a_part_of_cryonuseg_has_as_many_folds_as_organs() -> None:
    rows = cryonuseg_rows("Skin", "Larynx", per_organ=2)

    assert (
        "official rule on 4 of 30 images, 2 of 10 organs; fold 1 leaves out Skin"
        in official(rows, "cryonuseg", 1).notes[0]
    )
    with pytest.raises(ConfigError, match="official has the folds 0 to 1 here, got 2"):
        official(rows, "cryonuseg", 2)
    with pytest.raises(ConfigError, match=r"at least two organs are needed; cryonuseg has 1 \(Skin\)"):
        official(cryonuseg_rows("Skin"), "cryonuseg")


@pytest.mark.parametrize("dataset", ["conic", "conic@macenko"])
@pytest.mark.parametrize("fold", [0, 1, 9])
def test_the_test_part_of_conic_is_that_of_the_published_code(patch_info, dataset, fold) -> None:
    train, test = published_split(patch_info, fold)

    got = official(conic_rows(patch_info), dataset, fold, seed=7)

    assert got.test == tuple(name for name in patch_info if name in test)
    assert {*got.train, *got.validation} == train
    assert "official rule on 4981 of 4981 patches" in got.notes[0]
    assert "folds 1 to 9 overlap" in got.notes[0]
    assert len(got.notes) == 1


def test_every_fold_of_conic_keeps_source_images_together(patch_info) -> None:
    rows = conic_rows(patch_info)
    tested = []

    for fold in range(n_folds(rows, dataset="conic", protocol="official")):
        got = official(rows, "conic", fold)
        train, validation, test = sources_of(got.train, got.validation, got.test)
        assert not train & validation
        assert not (train | validation) & test
        assert 0.15 * 0.7 * 4981 < len(got.validation) < 0.15 * 0.9 * 4981
        tested.append(got.test)

    assert len(tested) == len(set(tested)) == 10


def test_the_order_of_the_patches_does_not_matter(patch_info) -> None:
    rows = conic_rows(patch_info)
    shuffled = random.Random(0).sample(rows, len(rows))

    ordered, other = official(rows, "conic", 3, seed=5), official(shuffled, "conic", 3, seed=5)

    for part in ("train", "validation", "test"):
        assert set(getattr(ordered, part)) == set(getattr(other, part))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 1000))
def test_conic_is_refused_where_scikit_learn_would_and_nowhere_else(n_sources, fold, seed) -> None:
    rng = np.random.default_rng(seed)
    names = [
        f"c{cohort}_{source}-{patch:04}"
        for cohort, count in enumerate(n_sources)
        for source in range(count)
        for patch in range(rng.integers(1, 5))
    ]
    assume(len(names) > 3)
    try:
        train, test = published_split(names, fold)
    except ValueError:
        with pytest.raises(ConfigError, match="CoNIC"):
            official(conic_rows(names), "conic", fold, seed)
        return

    if len(train) > 1:
        got = official(conic_rows(names), "conic", fold, seed)
        assert set(got.test) == test
        trained, validated, _ = sources_of(got.train, got.validation, got.test)
        assert not trained & validated or any("the same group" in note for note in got.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["consep_1-0000"], r"at least two source images are needed; conic has 1 \(consep_1\)"),
        (["consep_1-0000", "consep_1-0001"], r"at least two source images"),
        (["a_1-0", "a_2-0", "b_1-0", "c_1-0"], r"only one of b, c\. .*`--split grouped`"),
        (
            [f"{cohort}_{source}-0" for cohort in "abc" for source in range(3)],
            r"fifth of the 9 source images of conic \(3 of a, 3 of b, 3 of c\) is 2, too few for 3 cohorts.*11 source"
            r" images.*`--split grouped`",
        ),
    ],
)
def test_data_that_cannot_be_split_by_the_rule_of_conic_is_refused_with_the_reason(names, message) -> None:
    with pytest.raises(ConfigError, match=message):
        official(conic_rows(names), "conic")
    with pytest.raises(ConfigError, match=message):
        n_folds(conic_rows(names), dataset="conic", protocol="official")


def test_a_split_of_conic_by_images_says_how_many_patches_leak(patch_info) -> None:
    rows = conic_rows(patch_info)

    for protocol in ("kfold", "paper"):
        got = split(rows, dataset="conic", protocol=protocol, fold=0, seed=0)
        trained, tested = sources_of(got.train + got.validation, got.test)
        n_leaking = sum(id_.split("-")[0] in trained for id_ in got.test)
        assert tested & trained
        assert got.notes[0].startswith(f"{n_leaking} of {len(got.test)} test images come from a group")


def test_a_summary_describes_the_protocol() -> None:
    assert "10 folds" in protocol_summary("cryonuseg", "official")
    assert "stratified by cohort" in protocol_summary("conic@macenko", "official")
    assert protocol_summary("dsb2018", "official").startswith("none")
    assert protocol_summary("dsb2018", "grouped") in protocol_summary("dsb2018", "official")


def rows_from(dataset: str, source: Path) -> list[SplitRow]:
    entries = open_dataset(dataset, source).entries
    return [SplitRow(id=entry.id, group=entry.group, stratum=entry.stratum) for entry in entries]


@pytest.mark.shared
def test_the_real_images_of_cryonuseg_are_one_of_each_of_five_organs(shared) -> None:
    rows = rows_from("cryonuseg", shared / "data" / "cryonuseg")

    got = official(rows, "cryonuseg", 3)

    assert n_folds(rows, dataset="cryonuseg", protocol="official") == 5
    assert got.test == ("Human_Skin_03",)
    assert got.notes == (
        "CryoNuSeg: official rule on 5 of 30 images, 5 of 10 organs; fold 3 leaves out " + rows[3].stratum + ".",
    )


@pytest.mark.shared
@pytest.mark.parametrize("protocol", protocol_names())
def test_the_one_real_patch_of_conic_is_refused(shared, protocol) -> None:
    rows = rows_from("conic", shared / "data" / "conic")

    with pytest.raises(ConfigError, match="at least"):
        split(rows, dataset="conic", protocol=protocol, fold=0, seed=0)


@pytest.mark.shared
def test_the_patients_of_the_real_images_of_dsb2018_are_unknown(shared) -> None:
    rows = rows_from("dsb2018", shared / "data" / "dsb2018_he")

    notes = official(rows, "dsb2018").notes

    assert "dsb2018 has no official split" in notes[0]
    assert "a leak cannot be ruled out" in notes[-1]
