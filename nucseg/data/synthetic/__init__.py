"""Synthetic images, always available: for the demo, for tests, and to try nucseg without data."""

from nucseg.data.synthetic.dataset import RELEASE, SyntheticEntry, synthetic_dataset

__all__ = ["RELEASE", "SyntheticEntry", "synthetic_dataset"]
