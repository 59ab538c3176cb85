"""A store is opened by the name of its data set, and refused if it holds another one."""

from pathlib import Path

import pytest

from nucseg.errors import ConfigError
from nucseg_cache import Store, StoreNotFound
from nucseg_pipeline.datasets.stores import open_store


def make(cache: Path, name: str, dataset: str, **preparation: str) -> None:
    Store.create(cache / f"{name}.zarr", dataset=dataset, source="", preparation={"side_px": "8", **preparation})


@pytest.mark.parametrize(
    ("name", "dataset", "preparation"),
    [
        ("mine", "mine", {}),
        ("mine", "mine", {"stain": "none"}),
        ("mine@macenko", "mine@macenko", {"stain": "macenko"}),
        ("mine@macenko", "mine", {"stain": "macenko"}),
        ("slides@2024", "slides@2024", {}),
    ],
)
def test_a_store_is_opened_by_the_name_of_what_it_holds(
    tmp_path: Path, name: str, dataset: str, preparation: dict[str, str]
) -> None:
    make(tmp_path, name, dataset, **preparation)

    assert open_store(str(tmp_path), name).location == str(tmp_path / f"{name}.zarr")


@pytest.mark.parametrize(
    ("name", "dataset", "preparation", "holds"),
    [
        ("mine", "yours", {}, "yours"),
        ("mine", "mine@macenko", {"stain": "macenko"}, "mine@macenko"),
        ("mine", "mine", {"stain": "macenko"}, "mine, prepared with the stain macenko"),
        ("mine@macenko", "mine", {}, "mine"),
        ("mine@macenko", "mine@reinhard", {"stain": "reinhard"}, "mine@reinhard"),
    ],
)
def test_a_store_that_was_copied_or_renamed_is_refused(
    tmp_path: Path, name: str, dataset: str, preparation: dict[str, str], holds: str
) -> None:
    make(tmp_path, name, dataset, **preparation)

    with pytest.raises(ConfigError, match=rf"{name}\.zarr holds {holds}, not {name}: it was copied or renamed"):
        open_store(str(tmp_path), name)


def test_a_store_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        open_store(str(tmp_path), "mine")


def test_a_misspelt_name_is_answered_with_the_store_that_was_meant(tmp_path: Path) -> None:
    make(tmp_path, "nuinsseg@macenko", "nuinsseg@macenko", stain="macenko")

    with pytest.raises(StoreNotFound, match=r"Did you mean 'nuinsseg@macenko'\? Make it with `nucseg embed --dataset"):
        open_store(tmp_path, "nuinsseg@maceko")
