"""Data sets as found in the wild, as samples of one kind, on one grid, in documented parts."""

from nucseg.data.prepare import Prepared, content_size, prepare
from nucseg.data.registry import dataset_names, open_dataset
from nucseg.data.sample import DataSet, Entry, Sample
from nucseg.data.splits import Split, SplitRow, protocol_names, split
from nucseg.data.synthetic import synthetic_dataset

__all__ = [
    "DataSet",
    "Entry",
    "Prepared",
    "Sample",
    "Split",
    "SplitRow",
    "content_size",
    "dataset_names",
    "open_dataset",
    "prepare",
    "protocol_names",
    "split",
    "synthetic_dataset",
]
