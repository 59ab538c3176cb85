"""Training, validation and test parts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from nucseg.data import SplitRow, open_dataset, protocol_names, split, synthetic_dataset
from nucseg.data.holdout import held_out_groups
from nucseg.data.splits import n_folds
from nucseg.errors import ConfigError


def rows_of(*sizes: int, per_stratum: int = 1) -> list[SplitRow]:
    """One group of each size; `per_stratum` groups in turn share a stratum."""
    return [
        SplitRow(id=f"{group}/{number}", group=f"group {group}", stratum=f"stratum {group // per_stratum}")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]


def groups_in(part: tuple[str, ...]) -> set[str]:
    return {id_.split("/")[0] for id_ in part}


def test_the_official_test_part_of_nuinsseg_is_that_of_the_published_rule() -> None:
    rows = rows_of(*[4] * 31)
    folds = KFold(n_splits=5, shuffle=True, random_state=19).split(np.zeros(124))

    for fold, (_, test) in enumerate(folds):
        got = split(rows, dataset="nuinsseg", protocol="official", fold=fold, seed=3)
        assert got.test == tuple(rows[number].id for number in test)
        assert got.protocol == "official"


def test_notes_of_nuinsseg_say_that_images_are_missing_and_leak() -> None:
    notes = split(rows_of(*[4] * 31), dataset="nuinsseg", protocol="official", fold=0, seed=0).notes

    assert any("official rule on 124 of 665" in note for note in notes)
    assert any("25 of 25 test images come from a group (patient, slide" in note for note in notes)


@pytest.mark.parametrize("dataset", ["folder", "synthetic"])
def test_a_data_set_without_official_split_gets_grouped_folds_and_a_note(dataset) -> None:
    rows = rows_of(4, 5, 6, 7, 8, 9)

    official = split(rows, dataset=dataset, protocol="official", fold=1, seed=0)
    grouped = split(rows, dataset=dataset, protocol="grouped", fold=1, seed=0)

    assert official.protocol == "grouped"
    assert f"{dataset} has no official split" in official.notes[0]
    assert (official.train, official.validation, official.test) == (grouped.train, grouped.validation, grouped.test)


@pytest.mark.parametrize("protocol", ["grouped", "kfold", "official"])
def test_every_image_is_tested_in_exactly_one_fold(protocol) -> None:
    rows = rows_of(*[4] * 31)

    parts = [split(rows, dataset="nuinsseg", protocol=protocol, fold=fold, seed=5).test for fold in range(5)]

    assert Counter(id_ for part in parts for id_ in part) == Counter(row.id for row in rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 4


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.sampled_from(protocol_names()),
    st.sampled_from(["nuinsseg", "folder"]),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
)
def test_parts_are_disjoint_complete_ordered_and_repeatable(sizes, protocol, dataset, fold, seed, per_stratum) -> None:
    rows = rows_of(*sizes, per_stratum=per_stratum)
    asked = {"dataset": dataset, "protocol": protocol, "fold": fold, "seed": seed}
    try:
        got = split(rows, **asked)
    except ConfigError:
        # Refused only where there are too few images or groups, or not so many folds
        assert len(rows) < 5 or fold > 0 or len(sizes) < 2 or max(sizes) > len(rows) - 2
        return

    parts = (got.train, got.validation, got.test)
    order = [row.id for row in rows]
    assert Counter(id_ for part in parts for id_ in part) == Counter(order)
    assert all(part == tuple(sorted(part, key=order.index)) and part for part in parts)
    assert split(rows, **asked) == got


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=3, max_size=12), st.integers(0, 2), st.integers(0, 1000))
def test_no_group_is_in_two_parts_of_a_grouped_split(sizes, fold, seed) -> None:
    rows = rows_of(*sizes, per_stratum=2)

    got = split(rows, dataset="folder", protocol="grouped", fold=fold, seed=seed)

    train, validation, test = groups_in(got.train), groups_in(got.validation), groups_in(got.test)
    assert not train & validation
    assert not (train | validation) & test
    assert len(got.validation) <= len(got.train)


def test_whole_groups_are_held_out_until_they_are_15_percent() -> None:
    rows = rows_of(*[4] * 31)
    for seed in range(10):
        got = split(rows, dataset="nuinsseg", protocol="grouped", fold=0, seed=seed)
        n_rest = len(got.train) + len(got.validation)
        assert 0.15 * n_rest <= len(got.validation) < 0.15 * n_rest + 4


def test_a_huge_group_is_trained_on_rather_than_held_out() -> None:
    for seed in range(10):
        got = split(rows_of(20, 90, 10), dataset="folder", protocol="grouped", fold=1, seed=seed)
        assert groups_in(got.train) == {"1"}


def test_two_groups_give_two_folds_and_validation_from_the_training_group_with_a_note() -> None:
    got = split(rows_of(20, 20), dataset="folder", protocol="grouped", fold=1, seed=0)

    assert len(groups_in(got.test)) == 1
    assert groups_in(got.train) == groups_in(got.validation) != groups_in(got.test)
    assert len(got.validation) == 3
    assert any("validation has images of the same group" in note for note in got.notes)
    with pytest.raises(ConfigError, match="has the folds 0 to 1 here, got 2"):
        split(rows_of(20, 20), dataset="folder", protocol="grouped", fold=2, seed=0)


def strata(part: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(id_.split("/")[0] for id_ in part))


def test_validation_is_spread_over_the_strata() -> None:
    got = split(rows_of(100, 50, 25), dataset="nuinsseg", protocol="kfold", fold=0, seed=0)

    rest = Counter(id_.split("/")[0] for id_ in got.train + got.validation)
    assert len(got.validation) == 21  # 15 % of 140
    assert all(abs(strata(got.validation)[name] - 0.15 * n) < 1 for name, n in rest.items())


def test_the_papers_protocol_divides_each_stratum_70_15_15() -> None:
    got = split(rows_of(100, 60, 40), dataset="folder", protocol="paper", fold=0, seed=0)

    assert strata(got.test) == {"0": 15, "1": 9, "2": 6}
    assert strata(got.validation) == {"0": 15, "1": 9, "2": 6}
    assert strata(got.train) == {"0": 70, "1": 42, "2": 28}


def test_strata_too_small_to_give_an_image_are_pooled() -> None:
    rows = rows_of(*[3] * 20, 40)

    got = split(rows, dataset="folder", protocol="paper", fold=0, seed=0)

    assert strata(got.test)["20"] == 6
    assert sum(strata(got.test).values()) == 15


def test_the_seed_moves_validation_but_not_a_fixed_test_part() -> None:
    rows = rows_of(*[4] * 31)
    for protocol, test_moves in [("official", False), ("grouped", False), ("kfold", True), ("paper", True)]:
        first, other = (split(rows, dataset="nuinsseg", protocol=protocol, fold=0, seed=seed) for seed in (1, 2))
        assert (first.test != other.test) == test_moves, protocol
        assert first.validation != other.validation, protocol


def lone_rows(group: str = "{}") -> list[SplitRow]:
    """Twenty images, each a group of its own."""
    return [SplitRow(id=str(number), group=group.format(number), stratum=f"organ {number % 2}") for number in range(20)]


@pytest.mark.parametrize("dataset", ["folder", "dsb2018", "mine"])
@pytest.mark.parametrize("protocol", ["grouped", "kfold", "paper", "official"])
def test_a_note_says_if_groups_are_unknown(protocol, dataset) -> None:
    notes = split(lone_rows(), dataset=dataset, protocol=protocol, fold=0, seed=0).notes

    assert sum("a leak cannot be ruled out" in note for note in notes) == 1
    assert dataset in notes[-1]
    assert not any("test images come from a group" in note for note in notes)


@pytest.mark.parametrize("dataset", ["cryonuseg", "cryonuseg@macenko"])
def test_a_data_set_with_one_slide_per_image_has_no_note_on_leaks(dataset) -> None:
    for protocol in ("grouped", "kfold", "paper"):
        assert split(lone_rows(), dataset=dataset, protocol=protocol, fold=0, seed=0).notes == ()


def test_named_groups_of_one_image_are_known_groups() -> None:
    assert split(lone_rows("patient {}"), dataset="mine", protocol="grouped", fold=0, seed=0).notes == ()


def test_subfolders_make_groups_known(tmp_path) -> None:
    for number in range(5):
        for kind in ("images", "masks"):
            for folder in (tmp_path / "flat" / kind, tmp_path / "sorted" / kind / f"patient {number}"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}.png").touch()

    for layout, known in (("flat", False), ("sorted", True)):
        rows = rows_from(open_dataset("folder", tmp_path / layout).entries)
        notes = split(rows, dataset="mine", protocol="grouped", fold=0, seed=0).notes
        assert any("cannot be ruled out" in note for note in notes) != known, layout


@pytest.mark.parametrize(
    ("sizes", "asked", "message"),
    [
        ([9], {"protocol": "grouped"}, "at least two groups .* folder has 1"),
        ([9], {"protocol": "official"}, "at least two groups"),
        ([2, 2], {"protocol": "kfold"}, "at least 5 images, one per fold; folder has 4"),
        ([2, 2], {"protocol": "official", "dataset": "nuinsseg"}, "at least 5 images"),
        ([1, 1], {"protocol": "paper"}, "at least 3 images, one for each part; folder has 2"),
        ([1, 1], {"protocol": "grouped"}, "at least 3 in all"),
        ([9, 9], {"protocol": "kfold", "fold": 5}, "kfold has the folds 0 to 4 here, got 5"),
        ([9, 9], {"protocol": "kfold", "fold": -1}, "got -1"),
        ([9, 9], {"protocol": "paper", "fold": 1}, "only fold 0 here, got 1"),
        ([9, 9], {"protocol": "random"}, "'random'. Known: official, grouped, kfold, paper"),
        ([9, 9], {"protocol": "kfold", "seed": -1}, "between 0 and 4294967295, got -1"),
    ],
)
def test_impossible_splits_are_refused_with_the_reason(sizes, asked, message) -> None:
    asked = {"dataset": "folder", **asked}
    with pytest.raises(ConfigError, match=message):
        split(rows_of(*sizes), **{"fold": 0, "seed": 0, **asked})
    if not asked.keys() & {"fold", "seed"} and "3 in all" not in message:
        with pytest.raises(ConfigError, match=message):
            n_folds(rows_of(*sizes), dataset=asked["dataset"], protocol=asked["protocol"])


def rows_from(entries) -> list[SplitRow]:
    return [SplitRow(id=entry.id, group=entry.group, stratum=entry.stratum) for entry in entries]


@pytest.mark.shared
def test_the_real_images_are_split_by_the_published_rule(shared) -> None:
    rows = rows_from(open_dataset("nuinsseg", shared / "data" / "nuinsseg").entries)
    names = np.array(sorted(row.id for row in rows))
    _, test = list(KFold(n_splits=5, shuffle=True, random_state=19).split(names))[2]

    assert split(rows, dataset="nuinsseg", protocol="official", fold=2, seed=0).test == tuple(names[test])


KINDS = {
    "nuinsseg": rows_of(*[4] * 31),
    "nuinsseg@macenko": rows_of(*[4] * 31),
    "cryonuseg": [
        SplitRow(id=f"{organ}_{n}", group=f"{organ}_{n}", stratum=organ) for organ in "abcdefghij" for n in range(3)
    ],
    "conic": [
        SplitRow(id=f"{cohort}_{source}-{n}", group=f"{cohort}_{source}", stratum=cohort)
        for cohort in ("consep", "crag", "glas")
        for source in range(6)
        for n in range(1 + source)
    ],
    "dsb2018": [SplitRow(id=f"{n:064x}", group=f"{n:064x}", stratum="all") for n in range(21)],
    "synthetic": rows_from(synthetic_dataset().entries),
    "mine": rows_of(7, 1, 4, 9),
}
"""Rows as each data set gives them."""


@pytest.mark.parametrize("protocol", protocol_names())
@pytest.mark.parametrize("dataset", KINDS)
def test_every_protocol_divides_every_data_set(dataset, protocol) -> None:
    rows = KINDS[dataset]
    count = n_folds(rows, dataset=dataset, protocol=protocol)

    assert count == {"paper": 1}.get(protocol, 5) or protocol == "official" or dataset == "mine"
    for fold in range(count):
        got, other = (split(rows, dataset=dataset, protocol=protocol, fold=fold, seed=seed) for seed in (0, 1))
        assert Counter(got.train + got.validation + got.test) == Counter(row.id for row in rows)
        assert got.train
        assert got.validation
        assert got.test
        assert got.test == other.test or protocol in ("kfold", "paper")
    with pytest.raises(ConfigError, match=f"got {count}"):
        split(rows, dataset=dataset, protocol=protocol, fold=count, seed=0)


@pytest.mark.parametrize("protocol", ["grouped", "official"])
@pytest.mark.parametrize("dataset", ["conic", "cryonuseg", "dsb2018", "synthetic", "mine"])
def test_no_group_of_any_data_set_is_in_two_parts(dataset, protocol) -> None:
    rows = KINDS[dataset]
    group = {row.id: row.group for row in rows}

    for fold in range(n_folds(rows, dataset=dataset, protocol=protocol)):
        got = split(rows, dataset=dataset, protocol=protocol, fold=fold, seed=fold)
        train, validation, test = ({group[id_] for id_ in part} for part in (got.train, got.validation, got.test))
        assert not train & validation
        assert not (train | validation) & test


@pytest.mark.parametrize("protocol", protocol_names())
@pytest.mark.parametrize("dataset", KINDS)
def test_every_protocol_refuses_a_single_image(dataset, protocol) -> None:
    with pytest.raises(ConfigError, match=r"at least .*\. Add (images|patches)"):
        n_folds(KINDS[dataset][:1], dataset=dataset, protocol=protocol)


def test_groups_held_out_for_validation_are_spread_over_the_strata() -> None:
    """Five cohorts of source images: each contributes about its share to validation, in whole groups."""
    sources = {"consep": 14, "crag": 40, "dpath": 30, "glas": 24, "pannuke": 20}
    groups = [f"{cohort}_{n}" for cohort, count in sources.items() for n in range(count) for _ in range(1 + n % 4)]
    strata = [group.split("_")[0] for group in groups]

    for seed in range(30):
        held = held_out_groups(groups, strata, 0.15, seed)
        for cohort in sources:
            share = sum(strata[n] == cohort for n in held) / strata.count(cohort)
            assert 0.15 <= share < 0.15 + 4 / strata.count(cohort), (seed, cohort)
        assert not {groups[n] for n in held} & {groups[n] for n in set(range(len(groups))) - set(held)}
