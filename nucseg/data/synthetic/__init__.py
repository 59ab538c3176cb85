"""Images drawn by us, always available: for the demo, for tests, for a first look without data."""

from nucseg.data.synthetic.dataset import RELEASE, SyntheticEntry, synthetic_dataset

__all__ = ["RELEASE", "SyntheticEntry", "synthetic_dataset"]
