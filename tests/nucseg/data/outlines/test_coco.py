"""COCO JSON: polygons, both forms of run-length encoding, and files of one or several images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg.data.masks import Labels
from nucseg.data.outlines import coco_parts, instances_from_outlines
from nucseg.errors import DataError

FILE, IMAGE = Path("masks/a.json"), Path("images/a.png")
SIZE = (40, 60)
COMPRESSED = (
    "01Z6j0SJ0000000000000000000000000000\\OG99GG99GG99GG99GG99GG9"
    "9GG99GG99GG99GG99GG99GG99GG99;00000000000000000000000000000000P;VOoE"
)
"""As `pycocotools.mask.encode` wrote `mask()`."""


def mask() -> np.ndarray:
    """A rectangle with a hole, and two single pixels."""
    values = np.zeros(SIZE, np.uint8)
    values[3:30, 5:50] = 1
    values[10:14, 20:33] = 0
    values[35, 58] = values[0, 0] = 1
    return values


def runs(values: np.ndarray) -> list[int]:
    """Lengths of runs column by column, the first of zeros."""
    pixels = [0, *values.ravel(order="F").tolist()]
    ends = [i for i in range(1, len(pixels)) if pixels[i] != pixels[i - 1]]
    return np.diff([1, *ends, len(pixels)]).tolist()


def coco(*segmentations: Any, **others: Any) -> dict[str, Any]:
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1], "segmentation": found}
        for number, found in enumerate(segmentations, start=1)
    ]
    image = {"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    known = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
    return {**known, **others}


def read(content: Mapping[str, Any], size: tuple[int, int] = SIZE) -> Labels:
    return instances_from_outlines(json.dumps(content).encode(), FILE, IMAGE, size)


@pytest.mark.parametrize("counts", [runs(mask()), COMPRESSED])
def test_run_length_encoded_masks_are_decoded_as_by_pycocotools(counts) -> None:
    labels = read(coco({"size": list(SIZE), "counts": counts}))

    np.testing.assert_array_equal(labels.instances, mask())
    assert labels.facts.classes == {"nucleus": 1}


def test_polygons_of_an_annotation_are_one_nucleus() -> None:
    labels = read(
        coco([[1, 1, 4, 1, 4, 4, 1, 4], [10.0, 1.0, 13.0, 1.0, 13.0, 4.0, 10.0, 4.0]], [[20, 20, 25, 20, 25, 25]])
    )

    assert np.bincount(labels.instances.ravel())[1] == 18
    assert labels.instances.max() == 2


def test_crowds_are_ignored_and_annotations_without_outline_are_counted() -> None:
    content = coco([[1, 1, 4, 1, 4, 4, 1, 4]], {"size": list(SIZE), "counts": runs(mask())}, [], [[]])
    content["annotations"][1]["iscrowd"] = 1

    labels = read(content)

    np.testing.assert_array_equal(labels.ignore, mask() > 0)
    assert labels.instances.max() == 1
    assert labels.facts.findings == {"ignored": "1", "shapeless": "2"}


def test_each_image_of_a_file_has_its_own_part() -> None:
    other = {"id": 8, "file_name": "b.png", "height": 9, "width": 9}
    content = coco([[1, 1, 4, 1, 4, 4, 1, 4]])
    content["images"].append(other)
    content["annotations"].append({"id": 9, "image_id": 8, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]})

    parts = coco_parts(json.dumps(content).encode(), FILE)

    assert list(parts) == ["a.png", "b.png"]
    content["annotations"][1]["segmentation"] = [[0, 0, 3, 0, 3, 3, 0, 3]]
    changed = coco_parts(json.dumps(content, indent=1).encode(), FILE)
    assert changed["a.png"] == parts["a.png"]
    assert changed["b.png"] != parts["b.png"]
    assert np.count_nonzero(instances_from_outlines(parts["b.png"], FILE, IMAGE, (9, 9)).instances) == 4
    assert np.count_nonzero(read(content).instances) == 9  # found by its name among two


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(3), "annotation 1 has a segmentation that is neither"),
        (coco([3]), "annotation 1 has a polygon that is not a list"),
        (coco([[1, 2, 3]]), "annotation 1 has a polygon that is not a list"),
        (coco([[1, 2, 3, None, 4, 5]]), "annotation 1 has corners"),
        (coco([[1, 2, 3, float("nan"), 4, 5]]), "annotation 1 has a corner"),
        (coco({"size": [9, 9], "counts": [81]}), r"annotation 1 .* of size \[9, 9\]"),
        (coco({"size": list(SIZE), "counts": [3]}), "annotation 1 .* do not fill"),
        (coco({"size": list(SIZE), "counts": [-1, 2401]}), "annotation 1 .* do not fill"),
        (coco({"size": list(SIZE), "counts": [10**30]}), "annotation 1 .* do not fill"),
        (coco({"size": list(SIZE), "counts": "~~~~~~~"}), "annotation 1 .* do not fill"),
        (coco({"size": list(SIZE)}), "annotation 1 .* do not fill"),
        (coco(annotations=[{"id": 3, "image_id": 99}]), "annotation 3 belongs to image 99"),
        (coco(annotations=[{"id": 3}]), "annotation 3 has no image_id"),
        (coco(annotations=[3]), "no lists of objects"),
        (coco(images=[]), "describes 0 images"),
        (coco(images=[{"id": 7}]), "an image has no file_name"),
        (coco(images=[{"id": 7, "file_name": "a.png"}] * 2), "the same id"),
        (coco(images=[{"id": 7, "file_name": "a.png", "height": 9, "width": 8}]), "of 8 x 9 pixels, but .* 60 x 40"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_file_and_the_annotation(content, message) -> None:
    with pytest.raises(DataError, match=rf"masks/a\.json.*{message}"):
        read(content)


def other_images(*names: str) -> Sequence[dict[str, Any]]:
    return [{"id": number, "file_name": name, "height": 9, "width": 9} for number, name in enumerate(names)]


def test_a_file_of_several_images_without_this_one_is_refused() -> None:
    with pytest.raises(DataError, match=r"describes 2 images, of which 0 are named like a\.png"):
        read(coco(images=other_images("b.png", "c.png")))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_with_anything_in_one_place_is_labels_or_an_error_that_names_it(data) -> None:
    content: Any = coco([[1, 1, 4, 1, 4, 4, 1, 4]], {"size": list(SIZE), "counts": runs(mask())})
    place = content
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    try:
        assert read(content).instances.shape == SIZE
    except DataError as error:
        message = str(error)
        assert "masks/a.json" in message
