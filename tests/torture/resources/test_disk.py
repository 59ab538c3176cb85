"""A real disk that fills up while something is written: what is finished is kept, the rest follows once there is space.

The disk is a tmpfs in a mount namespace of the program's own, so nothing else can fill it or notice.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DISK_MIB = 48


@pytest.fixture
def on_a_disk(tmp_path: Path) -> tuple[str, ...]:
    """What is put before a command so that it sees `tmp_path`/disk as a small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MIB}m none "$0" && exec "$@"'
    before = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(disk))
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk of their own (unshare --map-root-user --mount)")
    return before


FILLING = """
    disk, slides, seed, n_trials, base = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    import numpy as np
    from nucseg_cache import CacheError, Store, StoreNotFound, verify

    filler = disk / "filler"

    def used() -> int:
        return sum(file.stat().st_blocks * 512 for file in disk.rglob("*") if file.is_file())

    @contextlib.contextmanager
    def filling(when_used: int):
        "Fill the disk once so many bytes are on it; what somebody else writes there stops when it is full."
        over = threading.Event()

        def fill() -> None:
            while used_safely() < when_used and not over.is_set():
                time.sleep(0.0005)
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while not over.is_set():
                    file.write(bytes(1 << 16))

        def used_safely() -> int:
            with contextlib.suppress(OSError):
                return used()
            return 0

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            filler.unlink(missing_ok=True)
"""

EMBEDDING = """
    def embed(cache: Path) -> Any:
        return nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", cache, "--encoder", "random",
                      "--threads", 1, "--format", ("f16", "i8")[trial % 2])

    for trial in range(n_trials):
        reference = Path(base) / f"undisturbed {trial % 2}"
        if trial < 2:
            assert embed(reference).exit_code == 0
        n_bytes = sum(file.stat().st_size for file in reference.rglob("*") if file.is_file())
        cache = disk / "cache"
        with filling(int(np.random.default_rng((seed, trial)).uniform(0, 1) * n_bytes)):
            first = embed(cache)
        lost = wrong(first)
        store = cache / "mine.zarr"
        try:
            lost = lost or "; ".join(map(str, verify(str(store)).findings))
        except StoreNotFound:
            pass
        except CacheError as error:
            lost = lost or f"then the store cannot be opened: {error}"
        again = embed(cache)
        nucseg("cache", "prune", store)
        if not lost and (again.exit_code != 0 or digests(store) != digests(reference / "mine.zarr")):
            lost = f"once there is space the store is another: {again.output[-500:]}"
        told(refused=first.exit_code == 1, wrong=lost and f"{lost} (it said: {first.stderr[-300:]})")
        shutil.rmtree(cache, ignore_errors=True)
"""


TRAINING = """
    import torch

    base = Path(base)
    nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", base / "cache", "--encoder", "random",
           "--threads", 1)

    def train(run: Path, *more: str) -> Any:
        return nucseg("train", "--dataset", "mine", "--cache", base / "cache", "--encoder", "random", "--run", run,
                      "--width", 2, "--epochs", 2, "--batch-size", 2, "--threads", 1, "--device", "cpu", *more)

    def weights(run: Path) -> dict[str, Any]:
        return torch.load(run / "best.pt", weights_only=True)["model"]

    done = train(base / "run")
    assert done.exit_code == 0, done.output
    n_bytes = sum(file.stat().st_size for file in (base / "run").rglob("*"))
    for trial in range(n_trials):
        run = disk / "run"
        with filling(int(np.random.default_rng((seed, trial)).uniform(0, 1.3) * n_bytes)):
            first = train(run)
        lost = wrong(first)
        again = train(run, "--resume") if run.exists() else train(run)
        if not lost and again.exit_code != 0:
            lost = f"once there is space: {again.output[-500:]}"
        if not lost and (one := weights(run)) and (other := weights(base / "run")):
            lost = ", ".join(name for name in one if not torch.equal(one[name], other[name]))
        told(refused=first.exit_code == 1, wrong=lost and f"{lost} (it said: {first.stderr[-300:]})")
        shutil.rmtree(run)
"""


@pytest.mark.parametrize(
    ("doing", "source", "short", "long"), [("embedding", EMBEDDING, 2, 100), ("training", TRAINING, 0, 30)]
)
def test_on_a_disk_that_fills_up_what_is_finished_is_kept_and_the_rest_follows(
    on_a_disk: tuple[str, ...],
    program: Callable[..., list[dict[str, Any]]],
    slides: Path,
    profile: Any,
    ledger: Any,
    tmp_path: Path,
    doing: str,
    source: str,
    short: int,
    long: int,
) -> None:
    n_trials = profile.trials(short=short, long=long)
    if not n_trials:
        pytest.skip("in the long profile only")

    trials = program(FILLING + source, tmp_path / "disk", slides, profile.seed, n_trials, tmp_path, before=on_a_disk)

    assert len(trials) == n_trials
    for trial in trials:
        ledger.judge(f"disk that fills up while {doing}", wrong=trial["wrong"], refused=trial["refused"])
    assert any(trial["refused"] for trial in trials)
