"""Synthetic images are reproducible, and their labels match the pixels."""

import subprocess
import sys
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from nucseg.data import Sample, synthetic_dataset
from nucseg.errors import ConfigError


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Two images of each tissue."""
    return [entry.read()[0] for entry in synthetic_dataset(12).entries]


def test_there_are_60_images_of_six_tissues_from_two_or_three_slides() -> None:
    entries = synthetic_dataset().entries
    slides = defaultdict(set)
    for entry in entries:
        slides[entry.stratum].add(entry.group)

    assert len(entries) == len({entry.id for entry in entries}) == 60
    assert sorted(len(groups) for groups in slides.values()) == [2, 2, 2, 3, 3, 3]
    assert len(set.union(*slides.values())) == 15


def test_samples_have_the_shapes_and_types_of_other_data_sets(samples) -> None:
    for sample in samples:
        assert (sample.image.shape, sample.image.dtype) == ((512, 512, 3), np.uint8)
        assert (sample.instances.shape, sample.instances.dtype) == ((512, 512), np.int32)
        assert (sample.ignore.shape, sample.ignore.dtype) == ((512, 512), np.bool_)


def test_drawing_again_gives_the_same_bytes_and_digests() -> None:
    entry = synthetic_dataset(8).entries[7]

    first, second = entry.read(), entry.read()

    assert first[0].image.tobytes() == second[0].image.tobytes()
    assert first[0].instances.tobytes() == second[0].instances.tobytes()
    assert first[1:] == second[1:] == entry.digests()
    assert entry.read_image()[1] == entry.digests()[0]


def test_another_process_draws_the_same() -> None:
    code = "from nucseg.data import synthetic_dataset as S; print(*[d.hex() for d in S(2).entries[1].digests()])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.split() == [digest.hex() for digest in synthetic_dataset(2).entries[1].digests()]


def test_more_images_do_not_change_the_first_ones() -> None:
    assert synthetic_dataset(30).entries[:7] == synthetic_dataset(7).entries


def test_images_seeds_and_sides_all_differ() -> None:
    drawn = [synthetic_dataset(2).entries[0], synthetic_dataset(2).entries[1], synthetic_dataset(1, seed=1).entries[0]]
    drawn.append(synthetic_dataset(1, side_px=256).entries[0])

    assert len({entry.digests()[0] for entry in drawn}) == 4


@pytest.mark.parametrize("side_px", [64, 100, 257])
def test_any_side_from_64_pixels_can_be_drawn(side_px) -> None:
    sample = synthetic_dataset(1, side_px=side_px).entries[0].read()[0]

    assert sample.image.shape == (side_px, side_px, 3)
    assert sample.instances.any()


@pytest.mark.parametrize("asked", [{"n_images": 0}, {"side_px": 63}, {"seed": -1}])
def test_impossible_parameters_are_refused(asked) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(asked))}={next(iter(asked.values()))}"):
        synthetic_dataset(**asked)


def test_nuclei_are_bluer_and_darker_than_their_surroundings(samples) -> None:
    for sample in samples:
        nuclei = sample.instances > 0
        around = ndimage.binary_dilation(nuclei, iterations=12) & ~ndimage.binary_dilation(nuclei, iterations=3)
        inside, outside = sample.image[nuclei].mean(axis=0), sample.image[around].mean(axis=0)

        assert inside.mean() < outside.mean() - 5
        assert inside[2] - inside[0] > outside[2] - outside[0]


def test_the_background_is_pink_as_eosin(samples) -> None:
    for sample in samples:
        red, green, _ = np.median(sample.image[sample.instances == 0], axis=0)
        assert red > green + 10


def test_outlines_follow_the_drawn_nuclei(samples) -> None:
    """The optical density changes fastest at the border of the instance map."""
    fall = np.zeros(11)
    for sample in samples[::3]:
        absorbance = -np.log(np.maximum(sample.image, 1) / 255.0).sum(axis=2)
        nuclei = sample.instances > 0
        outward = ndimage.distance_transform_edt(~nuclei) - ndimage.distance_transform_edt(nuclei)
        outward -= 0.5 * np.sign(outward)  # both transforms count from pixel to pixel, the edge lies between
        profile = [absorbance[(outward > r) & (outward <= r + 1)].mean() for r in range(-6, 6)]
        fall += [before - after for before, after in pairwise(profile)]

    assert abs(int(np.argmax(fall)) - 5) <= 1


def test_tissues_differ_in_number_and_size_of_nuclei(samples) -> None:
    areas = defaultdict(list)
    for sample in samples:
        areas[sample.stratum].extend(np.bincount(sample.instances.ravel())[1:])

    assert len(areas["lymphoid"]) > 3 * len(areas["neural"])
    assert np.median(areas["hepatic"]) > 1.5 * np.median(areas["lymphoid"])


def test_some_nuclei_touch_and_some_areas_are_ignored(samples) -> None:
    crowded = next(sample.instances for sample in samples if sample.stratum == "lymphoid")

    _, n_components = ndimage.label(crowded > 0)
    assert n_components < 0.9 * len(np.unique(crowded))
    assert 0 < np.mean([sample.ignore.mean() for sample in samples]) < 0.05


def test_slides_of_a_tissue_are_stained_differently(samples) -> None:
    colours = defaultdict(list)
    for sample in samples:
        colours[sample.stratum].append(sample.image.mean(axis=(0, 1)))

    assert np.mean([np.abs(first - second).max() for first, second in colours.values()]) > 8


def test_a_threshold_finds_nuclei_but_does_not_solve_the_task(samples) -> None:
    scores = []
    for sample in samples:
        hematoxylin = rgb2hed(sample.image)[..., 0]
        found, true = hematoxylin > threshold_otsu(hematoxylin), sample.instances > 0
        scores.append(2 * (found & true).sum() / (found.sum() + true.sum()))

    assert 0.4 < np.mean(scores) < 0.85
