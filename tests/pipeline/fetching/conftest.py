"""What the tests of fetching share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nucseg_pipeline.fetching.patience import Patience


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the server of the test is asked."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hasty() -> Patience:
    """Waits for tenths of seconds where people wait for minutes."""
    return Patience(connect_s=1, stall_s=0.3, attempts=3, pause_s=0.01)


@pytest.fixture
def shown() -> Iterator[list[tuple[int, int, str]]]:
    """What a progress that appends to it was told; never more done than there is."""
    told: list[tuple[int, int, str]] = []
    yield told
    assert all(0 <= done <= total for done, total, _ in told)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Where a download goes."""
    return tmp_path / "file.zip.part"
