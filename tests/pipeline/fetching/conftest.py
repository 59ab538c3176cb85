"""What the tests of fetching share."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """While the block runs no file can grow beyond so many bytes: writing fails as on a disk that is full."""

    @contextmanager
    def limited(n_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
