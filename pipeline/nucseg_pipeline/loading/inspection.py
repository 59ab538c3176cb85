"""What has to be known of images before they are trained on or scored: whether a pixel counts, whether it is H&E."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from nucseg.data import Prepared, content_size
from nucseg.data.files import some
from nucseg.data.tissue import Tissue
from nucseg.errors import DataError
from nucseg_cache import SampleRow, Store
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import row_numbers

IGNORED = "every pixel of it is ignored"
"""Why an image cannot be scored."""


_CAUTION_NOTE = re.compile(r"\d+ of \d+ images do(es)? not look like H&E: .*|Every pixel of \d+ of .*", re.DOTALL)


def caution(sample: SampleRow | Prepared) -> str:
    """Why a prepared image cannot be scored or does not look like H&E; empty if it can and does."""
    if sample.ignore.all():
        return IGNORED
    height, width = content_size(sample.size, len(sample.image))
    return Tissue.of(sample.image[:height, :width]).caution


def caution_notes(cautions: Mapping[str, str], n_images: int) -> tuple[str, ...]:
    """A sentence on the images that do not look like H&E, given id -> `caution`; none if there are none."""
    unusual = [f"{image_id} ({why})" for image_id, why in cautions.items() if why not in ("", IGNORED)]
    if not unusual:
        return ()
    verb = "does" if len(unusual) == 1 else "do"
    return (f"{len(unusual)} of {n_images} images {verb} not look like H&E: {some(unusual)}. Check them.",)


def ignored_note(cautions: Mapping[str, str], n_images: int) -> tuple[str, ...]:
    """A sentence on the images in which every pixel is ignored, given id -> `caution`; none if there are none."""
    ignored = [image_id for image_id, why in cautions.items() if why == IGNORED]
    if not ignored:
        return ()
    share = f"{len(ignored)} of {n_images} images"
    return (f"Every pixel of {share} is ignored: {some(ignored)}. They are neither learned from nor scored.",)


def is_caution_note(note: str) -> bool:
    """Whether a note was made by `caution_notes` or `ignored_note`."""
    return _CAUTION_NOTE.fullmatch(note) is not None


def samples(store: Store, ids: Sequence[str]) -> Iterator[SampleRow]:
    """The samples of some ids in their order, read a few at a time."""
    rows = row_numbers(store, ids)
    for share in batches(rows, READ_ROWS):
        yield from store.read_samples(share)


def check_counted(store: Store, ids: Sequence[str], part: str) -> None:
    """Check that a part has a pixel that counts; usually its first image has one, and no other is read.

    Raises:
        DataError: every pixel of all its images is ignored.
    """
    if ids and all(sample.ignore.all() for sample in samples(store, ids)):
        raise nothing_counts(store, ids, part)


def nothing_counts(store: Store, ids: Sequence[str], part: str) -> DataError:
    """The error for a part in which every pixel is ignored."""
    return DataError(
        f"Every pixel is ignored in all {part} in {store.location} ({len(ids)}: {some(ids)}), so nothing counts. "
        "Correct their masks of ignored areas (0 is what counts) and run `nucseg embed` again, or choose another "
        "--split or --fold."
    )
