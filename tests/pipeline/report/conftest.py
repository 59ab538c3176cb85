"""Reports that several test modules read."""

from functools import partial
from pathlib import Path

import pytest

from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.report.stage import ReportResult, report
from tests.pipeline.report.drawn import Report, drawn_report, folds, two_runs

NAMES = ("unguided", "xgfb", "multiscale")


@pytest.fixture
def make(tmp_path: Path) -> Report:
    """Makes a report on drawn runs in the folder of the test."""
    return partial(drawn_report, tmp_path)


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """A report on a guided and an unguided run, with pictures of one image."""
    return drawn_report(tmp_path_factory.mktemp("two"), two_runs(), page=True, n_images=1)


@pytest.fixture(scope="session")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """A report on two configurations with two folds each, with pictures of four images."""
    return drawn_report(tmp_path_factory.mktemp("folds"), folds(), page=True, n_images=4, baseline="unguided")


@pytest.fixture(scope="session")
def trained_report(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """A report on three trained runs, the first without guidance; two of its images have pictures."""
    runs = tuple(trained / name for name in ("plain-f0", "guided", "multiscale"))
    out = tmp_path_factory.mktemp("trained-report") / "report"
    return report(ReportConfig(runs=runs, names=NAMES, out=out, n_images=2, n_resamples=100))
