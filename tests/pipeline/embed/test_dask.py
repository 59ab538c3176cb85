"""Stage one with Dask workers: the store is byte for byte that of a single process, whatever fails on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import psutil
import pytest

from nucseg.errors import ConfigError, DataError, EncoderError
from nucseg_cache import EmbeddingNotFound, Key, Store, verify
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed import dask_cluster
from nucseg_pipeline.embed.dask_cluster import ClusterError, worker_environments
from nucseg_pipeline.embed.dask_coordinator import block_result, raise_worker_errors
from nucseg_pipeline.embed.dask_worker import EncodeJob, RowBlock, ViewRows, encode_block, open_worker
from nucseg_pipeline.embed.estimate import DiskEstimate, TimeEstimate
from nucseg_pipeline.embed.stage import embed
from tests.pipeline.embed.small_dataset import files_of, write_dataset

distributed = pytest.importorskip("distributed")

N_IMAGES = 70
"""A block, and six rows of a second."""

TIMEOUT_S = 60.0

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "pages" / "clusters.md"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("slides") / "many", N_IMAGES)


@pytest.fixture(scope="module")
def alone(source: Path, instant_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one process makes; not to be changed."""
    config = configured(source, instant_encoder, tmp_path_factory.mktemp("alone"))
    return Path(embed(config, silent).location)


def configured(source: Path, encoder: str, cache: Path | str, **options: Any) -> EmbedConfig:
    given = {
        "dataset": "mine",
        "source": source,
        "encoder": encoder,
        "cache": str(cache),
        "threads": 1,
        "device": "cpu",
    }
    return EmbedConfig(**{**given, **options})


def silent(done: int, total: int, what: str) -> None:
    """Ignore the progress."""


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The worker processes that a process has started."""
    return [child for child in process.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


# ---- processes on this machine


def test_workers_make_the_store_of_one_process_and_are_reached_by_it_alone(
    source: Path, instant_encoder: str, alone: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int, str]] = []
    listening: set[str] = set()
    threads: list[str] = []
    estimates: list[Any] = []

    def progress(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))
        if what == "encoding" and not listening:
            family = [psutil.Process(), *workers_of(psutil.Process())]
            threads.extend(process.environ()["OMP_NUM_THREADS"] for process in family[1:])
            sockets = [socket for process in family for socket in process.net_connections()]
            listening.update(socket.laddr.ip for socket in sockets if socket.status == "LISTEN")

    result = embed(configured(source, instant_encoder, tmp_path, workers=2), progress, estimates.append)

    assert files_of(result.location) == files_of(alone)
    assert (result.n_encoded, result.n_embedded) == (N_IMAGES, N_IMAGES)
    assert listening == {"127.0.0.1"}
    assert threads == ["1", "1"]
    counts = [done for done, total, what in seen if what == "encoding"]
    assert counts == sorted(counts)
    assert counts[-1] == N_IMAGES
    assert len(counts) > N_IMAGES // 4, "images are counted, not blocks"
    space, duration = estimates
    assert isinstance(space, DiskEstimate)
    assert isinstance(duration, TimeEstimate)
    assert 0 < duration.n_left < N_IMAGES
    assert workers_of(psutil.Process()) == []


def test_processes_that_do_not_start_are_reported(
    source: Path, instant_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "START_S", 0.001)
    config = configured(source, instant_encoder, tmp_path, workers=1)

    with pytest.raises(ClusterError, match=r"1 worker processes did not start: .*Start fewer \(--workers\)"):
        embed(config, silent)

    assert workers_of(psutil.Process()) == []


# ---- an existing cluster, the same for all of these because it takes seconds to start


@pytest.fixture(scope="module")
def cluster(s3_environment: dict[str, str]) -> Iterator[Any]:
    """Two workers as a user would start them; `embed` gets the address of their scheduler."""
    at = "127.0.0.1"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host=at, dashboard_address=f"{at}:0", worker_dashboard_address=f"{at}:0",
        env=s3_environment, memory_limit=0, silence_logs=60,
    ) as started:  # fmt: skip
        yield started


@pytest.fixture
def on_cluster(source: Path, instant_encoder: str, cluster: Any, tmp_path: Path) -> Callable[..., EmbedConfig]:
    def configure(cache: Path | str = tmp_path, **options: Any) -> EmbedConfig:
        given = {"source": source, "encoder": instant_encoder, "scheduler": cluster.scheduler_address, **options}
        return configured(cache=cache, **given)

    return configure


def test_a_worker_that_is_killed_halfway_costs_nothing_that_was_written(
    on_cluster: Callable[..., EmbedConfig], alone: Path
) -> None:
    killed: list[int] = []
    most = 0

    def kill_the_busier(done: int, total: int, what: str) -> None:
        nonlocal most
        most = max(most, done)
        if what == "encoding" and done >= N_IMAGES // 3 and not killed:
            busier = max(workers_of(psutil.Process()), key=lambda process: process.cpu_times().user)
            busier.send_signal(signal.SIGKILL)
            killed.append(done)

    result = embed(on_cluster(), kill_the_busier)

    assert killed, "all was over before a worker could be killed"
    assert killed[0] < N_IMAGES
    assert result.n_embedded == most == N_IMAGES
    assert files_of(result.location) == files_of(alone)
    assert verify(result.location).findings == ()


def test_workers_write_straight_into_a_bucket(
    on_cluster: Callable[..., EmbedConfig], instant_encoder: str, s3: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "soft.toml"
    recipe.write_text('variants = 1\n[[transform]]\nname = "HEDJitter"\n')
    wanted = {"source": write_dataset(tmp_path / "few", 4), "views": str(recipe)}  # two tasks
    in_folder = embed(configured(**wanted, encoder=instant_encoder, cache=tmp_path / "folder"), silent)

    in_bucket = embed(on_cluster(s3, **wanted), silent)

    files, root = fsspec.core.url_to_fs(in_bucket.location, use_listings_cache=False)
    objects = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    assert in_bucket.n_encoded == in_folder.n_encoded == 4 + 4
    assert objects == files_of(in_folder.location)


def test_views_follow_the_images_and_an_image_that_changes_meanwhile_is_reported(
    on_cluster: Callable[..., EmbedConfig], instant_encoder: str, tmp_path: Path
) -> None:
    source = write_dataset(tmp_path / "few", 5)
    wanted = {"source": source, "views": "stain", "view_images": 3}

    def repaint(estimate: object) -> None:
        if isinstance(estimate, DiskEstimate):
            shutil.copy(source / "images" / "000.png", source / "images" / "002.png")

    with pytest.raises(DataError, match=r"1 of 5 images could not be used(?s:.*)002 was changed(?s:.*)other 4"):
        embed(on_cluster(tmp_path / "many", **wanted), silent, repaint)
    many = embed(on_cluster(tmp_path / "many", **wanted), silent)
    single = embed(configured(source, instant_encoder, tmp_path / "single", views="stain", view_images=3), silent)

    assert [view.n_embedded for view in many.views] == [5, 3, 3, 3, 3]
    assert files_of(many.location) == files_of(single.location)


def test_an_error_of_a_worker_is_raised_here(on_cluster: Callable[..., EmbedConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ONNX file computes in the precision it was exported in"):
        embed(on_cluster(precision="bfloat16"), silent)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    with pytest.raises(EncoderError, match=r"damaged\.onnx .* is not an ONNX model"):
        embed(on_cluster(encoder=f"onnx:{damaged}"), silent)


def test_a_run_that_is_interrupted_frees_the_cluster(
    on_cluster: Callable[..., EmbedConfig], alone: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        if what == "encoding" and done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(on_cluster(), interrupt)
    store = Store.open(tmp_path / "mine.zarr", mode="r+")
    embeddings = store.embeddings(store.keys()[0])
    with embeddings.claim(embeddings.blocks()[0], wait=True):
        n_kept = len(embeddings.embedded_rows())

    assert 10 <= n_kept < N_IMAGES
    assert embed(on_cluster(), silent).n_encoded == N_IMAGES - n_kept
    assert files_of(tmp_path / "mine.zarr") == files_of(alone)


def test_workers_with_another_version_or_encoder_are_named(
    on_cluster: Callable[..., EmbedConfig], cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(dask_cluster, "local_version", lambda: "9.9")
        with pytest.raises(
            ClusterError, match=r"must have nucseg 9\.9, as this machine(?s:.*)tcp://127\.0\.0\.1:\d+: 0\."
        ):
            embed(on_cluster(), silent)
    monkeypatch.setattr(
        "nucseg_pipeline.embed.dask_coordinator.asked_identity", lambda *args, **options: {"weights": "0123"}
    )
    with pytest.raises(EncoderError, match=r"weights: expected 0123, on tcp://127\.0\.0\.1:\d+ [0-9a-f]{32}"):
        embed(on_cluster(), silent)


def test_workers_that_cannot_start_are_named_with_their_reasons() -> None:
    errors = {"tcp://10.0.0.2:1": EncoderError("no weights"), "tcp://10.0.0.3:1": DataError("x")}
    with pytest.raises(ClusterError, match=r"2 of 3 workers(?s:.*)2:1: no weights\n  tcp://10\.0\.0\.3:1: x\n.*"):
        raise_worker_errors(errors, 3, local=False)


def test_a_scheduler_file_names_the_cluster(
    on_cluster: Callable[..., EmbedConfig], cluster: Any, tmp_path: Path
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))  # the part of what Dask writes that it reads

    assert embed(on_cluster(scheduler=str(file), limit=3), silent).n_encoded == 3


def test_a_scheduler_that_does_not_answer_is_reported(
    on_cluster: Callable[..., EmbedConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1)
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*dask scheduler"):
        embed(on_cluster(scheduler="tcp://127.0.0.1:9", limit=1), silent)
    with pytest.raises(ClusterError, match=r"no scheduler file .*gone\.json"):
        embed(on_cluster(scheduler=str(tmp_path / "gone.json"), limit=1), silent)


# ---- the command


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_command_that_is_stopped_leaves_no_worker_and_keeps_what_is_finished(
    instant_encoder: str, tmp_path: Path, how: str
) -> None:
    source = write_dataset(tmp_path / "few", 20)
    undisturbed = embed(configured(source, instant_encoder, tmp_path / "undisturbed"), silent).location
    options = ["--dataset", "mine", "--source", source, "--encoder", instant_encoder, "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nucseg_pipeline", "embed", *options, "--cache", tmp_path, "--device", "cpu",
         "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    values = tmp_path / "mine.zarr" / "embeddings"
    until(lambda: len(list(values.glob("*/identity/values/c/*"))) > 3 or process.poll() is not None, "a few rows")
    workers = workers_of(psutil.Process(process.pid))
    assert len(workers) == 1

    if how == "killed":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGTERM)  # to every process, as a terminal and Slurm do
    _, errors = process.communicate(timeout=TIMEOUT_S)

    until(lambda: not any(worker.is_running() for worker in workers), "the workers to end")
    if how == "terminated":
        assert process.returncode == 130, errors
        assert "Everything finished so far is kept" in errors
        assert "Traceback" not in errors
    store = Store.open(tmp_path / "mine.zarr")
    n_kept = len(store.embeddings(store.keys()[0]).embedded_rows())
    assert 0 < n_kept < 20
    assert embed(configured(source, instant_encoder, tmp_path), silent).n_encoded == 20 - n_kept
    assert files_of(store.location) == files_of(undisturbed)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"waited {TIMEOUT_S} s for {what}"
        time.sleep(0.005)


def test_the_script_of_the_documentation_runs(instant_encoder: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", DOCUMENTATION.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert 'encoder="random"' in block
    (tmp_path / "script.py").write_text(block.replace('encoder="random"', f"encoder={instant_encoder!r}"))
    environment = {**os.environ, "NUCSEG_CACHE": str(tmp_path)}

    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, env=environment, timeout=TIMEOUT_S)

    store = Store.open(tmp_path / "synthetic.zarr")
    assert len(store.embeddings(store.keys()[0]).embedded_rows()) == 4


# ---- cores and GPUs


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, str]]]:
    """The environments of the workers on a machine with nine cores and two GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(9), raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    return lambda **options: worker_environments(EmbedConfig(dataset="mine", **options))


@pytest.mark.parametrize(
    ("options", "threads"), [({"workers": 4}, "2"), ({"workers": 20}, "1"), ({"workers": 2, "threads": 3}, "3")]
)
def test_workers_share_the_cores(
    environments: Callable[..., list[dict[str, str]]], options: dict[str, int], threads: str
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        assert [worker[name] for worker in environments(device="cpu", **options)] == [threads] * options["workers"]


def test_every_worker_has_its_own_gpu(
    environments: Callable[..., list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in environments(workers=2)] == ["4", "GPU-7"]
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in environments(workers=1, device="cuda")] == ["4"]
    with pytest.raises(ConfigError, match=r"3 workers need a GPU each, but torch sees 2\. Use --workers 2, .*cpu"):
        environments(workers=3)
    with pytest.raises(ConfigError, match="--device cuda:1 is one GPU"):
        environments(workers=2, device="cuda:1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in environments(workers=2)] == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "CUDA_VISIBLE_DEVICES" not in environments(workers=3)[0]
    with pytest.raises(ConfigError, match="torch sees 0"):
        environments(workers=2, device="cuda")


def test_workers_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="workers starts processes on this machine and scheduler"):
        EmbedConfig(dataset="mine", workers=2, scheduler="tcp://127.0.0.1:8786")
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        EmbedConfig(dataset="mine", workers=0)


def test_dask_is_loaded_only_where_it_is_asked_for() -> None:
    code = "import sys, nucseg_pipeline.cli, nucseg_pipeline.embed.stage; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"nucseg_pipeline.embed.encode", "zarr"} <= set(done.stdout.split())
    assert not {"dask", "distributed", "s3fs"} & set(done.stdout.split())


# ---- what a worker and the coordinator refuse


def test_a_cache_folder_that_is_not_shared_is_refused_before_anything_is_written(
    source: Path, instant_encoder: str, tmp_path: Path
) -> None:
    config = configured(source, instant_encoder, tmp_path, limit=2)
    location = embed(replace(config, encoder="none"), silent).location
    job = EncodeJob.of("a run", config, location, str(source))
    identity = open_worker(job).identity
    key = Key({**identity, "format": "f16"})
    block = RowBlock(range(64), (ViewRows(None, frozenset({0, 1})),))

    with pytest.raises(EmbeddingNotFound, match="another folder of the same name"):
        encode_block(job, key, block, lambda done, what: None)
    with pytest.raises(EncoderError, match="weights: expected 0123"):
        encode_block(job, Key({**key.fields, "weights": "0123"}), block, lambda done, what: None)
    assert not Store.open(location).keys()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        ("error", distributed.KilledWorker("task", None, 3), r"encoded rows 64 to 127 died.*memory"),
        ("lost", None, "connection to the scheduler was lost"),
        ("cancelled", None, "connection to the scheduler was lost"),
    ],
)
def test_a_task_that_ends_without_a_result_is_reported(status: str, error: Exception | None, message: str) -> None:
    future = SimpleNamespace(status=status, exception=lambda: error)
    with pytest.raises(ClusterError, match=message):
        block_result(future, RowBlock(range(64, 128), ()))


def test_a_source_folder_that_lacks_images_on_a_worker_is_refused(instant_encoder: str, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "few", 3)
    config = configured(source, instant_encoder, tmp_path)
    location = embed(replace(config, encoder="none"), silent).location
    for kind in ("images", "masks"):
        (source / kind / "000.png").unlink()
    job = EncodeJob.of("another run", config, location, str(source))
    key = Key({**open_worker(job).identity, "format": "f16"})
    Store.open(location, mode="r+").embeddings(key).ensure_arrays()
    block = RowBlock(range(64), (ViewRows(None, frozenset({0, 1, 2})),))

    with pytest.raises(
        DataError, match=r"lacks 1 images that are to be embedded: 000.*same source folder under the same"
    ):
        encode_block(job, key, block, lambda done, what: None)


@pytest.mark.parametrize("kind", ["onnx", "student"])
def test_a_job_names_the_encoders_file_by_its_absolute_path(
    source: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = EncodeJob.of("a run", configured(source, f"{kind}:o/n", tmp_path), "mine.zarr", str(source))

    assert job.config.encoder == f"{kind}:{tmp_path}/o/n"
