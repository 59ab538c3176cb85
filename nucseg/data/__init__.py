"""Read published data sets as samples of one type, prepare them on one grid, and split them."""

from nucseg.data.prepare import Prepared, content_size, prepare, prepare_image, restore
from nucseg.data.registry import dataset_names, open_dataset, release_named, releases
from nucseg.data.release import Release
from nucseg.data.sample import DataSet, Entry, Sample
from nucseg.data.splits import Split, SplitRow, n_folds, protocol_names, protocol_summary, split
from nucseg.data.stain import STAINS, Normalised, normalise, stain_identity
from nucseg.data.synthetic import synthetic_dataset

__all__ = [
    "STAINS",
    "DataSet",
    "Entry",
    "Normalised",
    "Prepared",
    "Release",
    "Sample",
    "Split",
    "SplitRow",
    "content_size",
    "dataset_names",
    "n_folds",
    "normalise",
    "open_dataset",
    "prepare",
    "prepare_image",
    "protocol_names",
    "protocol_summary",
    "release_named",
    "releases",
    "restore",
    "split",
    "stain_identity",
    "synthetic_dataset",
]
