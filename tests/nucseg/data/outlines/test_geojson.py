"""Outlines in GeoJSON: what `nucseg predict` and QuPath write, and files that are damaged or of another place."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from nucseg.data.masks import Labels
from nucseg.data.outlines import instances_from_outlines
from nucseg.errors import DataError
from nucseg.nuclei.polygons import outline

FILE, IMAGE = Path("masks/a.geojson"), Path("images/a.png")
SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]
HOLE = [[4, 4], [4, 6], [6, 6], [6, 4], [4, 4]]


def feature(*rings: Any, kind: str = "Polygon", name: str | None = None, **properties: Any) -> dict[str, Any]:
    classification = {"classification": {"name": name, "color": [1, 2, 3]}} if name else {}
    return {
        "type": "Feature",
        "id": "6f1a",
        "geometry": {"type": kind, "coordinates": list(rings)},
        "properties": {"objectType": "detection", "isLocked": True, **classification, **properties},
    }


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def read(content: Any, size: tuple[int, int] = (12, 14)) -> Labels:
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        content = {"type": "FeatureCollection", "features": list(content)}
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return instances_from_outlines(data, FILE, IMAGE, size)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays("u1", (9, 11), elements=st.integers(0, 3)))
def test_what_predict_writes_is_read_back_exactly(values) -> None:
    instances = np.zeros((9, 11), np.int32)
    for value in (1, 2, 3):
        components, _ = ndimage.label(values == value)
        instances[components > 0] = components[components > 0] + instances.max()
    written = [feature(*outline(instances == number)) for number in range(1, instances.max() + 1)]

    np.testing.assert_array_equal(read(written, (9, 11)).instances, instances)


@pytest.mark.parametrize("kind", ["tile", "tma_core", "root"])
def test_objects_of_qupath_that_are_no_nuclei_are_left_out(kind) -> None:
    labels = read([feature(square(2, 2, 4)), feature(square(7, 2, 4), objectType=kind)])

    assert np.unique(labels.instances).tolist() == [0, 1]
    assert labels.facts.findings["shapeless"] == "1"


EIGHTHS = st.integers(-40, 200).map(lambda number: number / 8)
CORNERS = st.tuples(EIGHTHS, EIGHTHS)


@settings(max_examples=100, deadline=None)
@given(st.lists(CORNERS, min_size=3, max_size=8))
def test_the_pixels_are_those_whose_centre_shapely_finds_inside(corners) -> None:
    polygon = shapely.Polygon(corners)
    centres = np.stack(np.meshgrid(np.arange(20) + 0.5, np.arange(16) + 0.5), axis=-1)
    if not polygon.is_valid:
        return
    near_edge = shapely.distance(polygon.boundary, shapely.points(centres)) < 1e-6
    expected = shapely.contains_xy(polygon, centres[..., 0], centres[..., 1])
    try:
        found = read([feature([list(corner) for corner in corners])], (16, 20)).instances > 0
    except DataError as error:
        message = str(error)
        assert "none of its 1 outlines" in message
        assert not (expected & ~near_edge).any()
        return
    np.testing.assert_array_equal(found[~near_edge], expected[~near_edge])


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(SQUARE, HOLE)]},
        [feature(SQUARE, HOLE)],
        feature(SQUARE, HOLE),
        {"features": [feature([SQUARE, HOLE], kind="MultiPolygon")]},
        {"features": [feature(SQUARE[:-1], HOLE)]},  # a ring that is not closed
        {"features": [feature([[*corner, 0.0] for corner in SQUARE], HOLE)]},  # with z
    ],
)
def test_the_forms_of_geojson_are_alike(content) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(content).encode()  # with a byte order mark, as Windows adds it

    expected = np.zeros((12, 14), int)
    expected[2:8, 2:8] = 1
    expected[4:6, 4:6] = 0
    np.testing.assert_array_equal(read(data).instances, expected)


def test_of_a_qupath_cell_the_nucleus_is_taken() -> None:
    cell = feature(SQUARE, objectType="cell") | {"nucleusGeometry": {"type": "Polygon", "coordinates": [HOLE]}}
    without = feature(square(9, 2, 3), objectType="cell")

    labels = read([cell, without])

    assert np.argwhere(labels.instances).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]
    assert labels.facts.findings == {"shapeless": "1"}


def test_classes_are_counted_and_ignored_areas_are_ignored() -> None:
    labels = read(
        [
            feature(square(0, 0, 3), name="Tumor"),
            feature(square(4, 0, 3), name="Tumor"),
            feature(square(0, 4, 3), classification={"names": ["Immune", "Positive"]}),
            feature(square(4, 4, 3)),
            feature(square(8, 4, 3), name="Ignore*"),
        ]
    )

    assert labels.facts.classes == {"Tumor": 2, "Immune: Positive": 1}
    assert labels.facts.findings == {"ignored": "1"}
    assert labels.instances.max() == 4
    assert np.argwhere(labels.ignore).tolist() == [[y, x] for y in (4, 5, 6) for x in (8, 9, 10)]


def test_points_lines_and_empty_geometries_are_left_out_and_counted() -> None:
    empty = [feature(), feature([]), {"type": "Feature", "geometry": None, "properties": None}]
    others = [feature(3, 4, kind="Point"), feature([1, 1], [5, 5], kind="LineString")]

    labels = read([*others, feature(SQUARE), *empty])

    assert labels.instances.max() == 1
    assert labels.facts.findings == {"shapeless": "5"}


def test_outlines_beyond_the_image_are_cut_or_left_out_and_counted() -> None:
    labels = read([feature(square(-3, -3, 6)), feature(square(40, 2, 3)), feature(square(5.6, 5.6, 0.3))])

    assert np.count_nonzero(labels.instances) == 9
    assert labels.facts.findings == {"cut": "1", "outside": "2"}


def test_a_file_of_another_place_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.geojson: none of its 2 outlines has a pixel in the image of 14 x 12"):
        read([feature(square(4000, 2, 5)), feature(square(2, 4000, 5))])


def test_the_smaller_of_two_that_overlap_keeps_the_pixels() -> None:
    labels = read([feature(square(0, 0, 6)), feature(square(4, 4, 4)), feature(square(0, 0, 6))])

    assert labels.facts.findings == {"overlapping": "2", "covered": "1"}
    assert sorted(np.unique(labels.instances, return_counts=True)[1].tolist())[:2] == [16, 32]


def test_a_region_around_several_nuclei_is_no_nucleus() -> None:
    region = feature(square(0, 0, 12), name="Tumor", objectType="annotation")

    labels = read([region, feature(square(1, 1, 3)), feature(square(6, 6, 3))])

    assert labels.instances.max() == 2
    assert np.count_nonzero(labels.instances) == 18
    assert labels.facts.classes == {}
    assert labels.facts.findings == {"regions": "1"}


@pytest.mark.parametrize("place", [(0, 0), (20, 0)])  # around one nucleus, or next to it
@pytest.mark.parametrize("detected", ["detection", "cell"])
@pytest.mark.parametrize(("side", "is_region"), [(14, True), (13, False)])
def test_what_is_drawn_far_larger_than_detected_nuclei_is_a_region(place, detected, side, is_region) -> None:
    drawn = feature(square(*place, side), name="Tumor", objectType="annotation")
    nucleus = feature(square(2, 2, 3), objectType=detected)
    found = nucleus | {"nucleusGeometry": nucleus["geometry"]}

    labels = read([drawn, found], (30, 40))

    assert np.unique(labels.instances[2:5, 2:5]).size == 1
    assert ("regions" in labels.facts.findings) == is_region
    assert labels.facts.classes == ({} if is_region else {"Tumor": 1})
    assert labels.instances.max() == (1 if is_region else 2)


def test_nuclei_drawn_by_hand_may_differ_in_size() -> None:
    drawn = [feature(square(x, 0, side), objectType="annotation") for x, side in ((0, 2), (3, 2), (6, 20))]

    assert read(drawn, (30, 40)).instances.max() == 3


def test_one_outline_around_the_image_is_noted() -> None:
    assert read([feature(square(0, 0, 12))]).facts.findings == {"cover": "86%"}


def test_no_features_are_an_image_without_nuclei() -> None:
    assert not read([]).instances.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"3", "neither GeoJSON .* nor COCO"),
        (b'{"type": "Topology"}', "neither GeoJSON .* nor COCO"),
        (b'[{"image_id": 1, "segmentation": []}]', "neither GeoJSON .* nor COCO"),
        (b'{"features": [3]}', "feature 1 is not a GeoJSON feature"),
        (b'{"features": [{"geometry": {"coordinates": []}}]}', "feature 1 has a geometry without a type"),
        ([feature(SQUARE), feature([[0, 0], [1, float("nan")], [1, 1]])], r"feature 2 has a corner at \[1.0, nan\]"),
        ([feature([[0, 0], [1e300, 0], [1, 1]])], r"feature 1 has a corner at \[1e\+300, 0.0\]"),
        ([feature([[0, 0], [float("inf"), 0], [1, 1]])], "corner at"),
        ([feature([[0, 0], [10**400, 0], [1, 1]], properties=3)], "feature 1"),
        ([feature([["0", "0"], ["1", "0"], ["1", "1"]])], "not pairs of numbers"),
        ([feature([[0, 0], [1], [1, 1]], name="Tumor")], "feature 1 has corners"),
        ([feature([0, 1, 2])], "not pairs of numbers"),
        ([feature(3, kind="MultiPolygon")], "no list of rings"),
        (b'{"features": [{"geometry": {"type": "Polygon", "coordinates": 3}}]}', "no list of rings"),
    ],
)
def test_what_is_no_outline_is_refused_with_the_file_and_the_feature(content, message) -> None:
    with pytest.raises(DataError, match=rf"masks/a\.geojson.*{message}"):
        read(content)


def test_an_outline_with_a_name_is_refused_by_its_name() -> None:
    named = feature([[0, 0], [1e9, 0], [1, 1]])
    named["properties"]["name"] = "17"

    with pytest.raises(DataError, match=r"feature 1 \(17\)"):
        read([named])


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "features", "geometry", "coordinates", "properties", "images", "annotations"]),
                inner | st.sampled_from(["Polygon", "MultiPolygon", "Feature", "FeatureCollection"]),
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_labels_or_an_error_that_names_the_file(content) -> None:
    try:
        assert read(json.dumps(content).encode()).instances.shape == (12, 14)
    except DataError as error:
        message = str(error)
        assert "masks/a.geojson" in message
