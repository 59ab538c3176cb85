"""A disk that fills up while a command writes: finished work is kept, and the next run completes it.

The disk is a tmpfs in a private mount namespace of the program, so that no other process sees it.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DISK_MIB = 48


@pytest.fixture
def on_small_disk(tmp_path: Path) -> tuple[str, ...]:
    """Wrapper of a command, for which `tmp_path`/disk is then a small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MIB}m none "$0" && exec "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(disk))
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("users cannot mount a tmpfs on this machine (unshare --map-root-user --mount)")
    return wrapper


FILLING = """
    disk, slides, encoder, base, seed, n_trials = Path(sys.argv[1]), *sys.argv[2:5], *map(int, sys.argv[5:])
    import numpy as np
    from nucseg_cache import CacheError, Store, StoreNotFound, verify

    filler = disk / "filler"

    def used() -> int:
        return sum(file.stat().st_blocks * 512 for file in disk.rglob("*") if file.is_file())

    @contextlib.contextmanager
    def filling(when_used: int):
        "Fill the disk as soon as `when_used` bytes are on it."
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
        return nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", cache, "--encoder", encoder,
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
            lost = f"with space again, the store differs: {again.output[-500:]}"
        report(refused=first.exit_code == 1, wrong=lost and f"{lost} (it said: {first.stderr[-300:]})")
        shutil.rmtree(cache, ignore_errors=True)
"""


TRAINING = """
    import torch

    base = Path(base)
    nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", base / "cache", "--encoder", encoder,
           "--threads", 1)

    def train(run: Path, *more: str) -> Any:
        return nucseg("train", "--dataset", "mine", "--cache", base / "cache", "--encoder", encoder, "--run", run,
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
            lost = f"with space again: {again.output[-500:]}"
        if not lost:
            found, expected = weights(run), weights(base / "run")
            lost = ", ".join(name for name in expected if not torch.equal(found[name], expected[name]))
        report(refused=first.exit_code == 1, wrong=lost and f"{lost} (it said: {first.stderr[-300:]})")
        shutil.rmtree(run)
"""


@pytest.mark.parametrize(
    ("doing", "source", "short", "long"), [("embedding", EMBEDDING, 2, 100), ("training", TRAINING, 0, 30)]
)
def test_work_finished_before_the_disk_is_full_is_kept(
    on_small_disk: tuple[str, ...],
    program: Callable[..., list[dict[str, Any]]],
    slides: Path,
    instant_encoder: str,
    profile: Any,
    ledger: Any,
    tmp_path: Path,
    doing: str,
    source: str,
    short: int,
    long: int,
) -> None:
    n_trials = profile.trials(short=short, long=long)
    arguments = (tmp_path / "disk", slides, instant_encoder, tmp_path, profile.seed, n_trials)

    trials = program(FILLING + source, *arguments, wrapper=on_small_disk)

    assert len(trials) == n_trials
    for trial in trials:
        ledger.judge(f"disk full while {doing}", wrong=trial["wrong"], refused=trial["refused"])
    assert any(trial["refused"] for trial in trials)
