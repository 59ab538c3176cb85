"""A small store of drawn images that trains in seconds, shared by the tests of the stages."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec.asyn
import numpy as np
import pytest
import torch
from zarr.core.sync import sync as zarr_sync

from nucseg.encoders import asked_identity
from nucseg_cache import Key, SampleRow, Store
from nucseg_pipeline.ablate.jobs import OnOutput
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.loading.batch import Batch
from nucseg_pipeline.train.stage import train

SIDE_PX, N_ROWS = 32, 12


def drawn_row(number: int) -> SampleRow:
    """Bright discs on a dark noisy ground; the last four pixel rows are padding."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    instances = np.zeros((SIDE_PX, SIDE_PX), np.int32)
    for disc in range(1, 4):
        centre_y, centre_x = random.integers(4, SIDE_PX - 8, 2)
        instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 14] = disc
    ignore = y >= SIDE_PX - 4
    instances[ignore] = 0
    image = random.integers(0, 90, (SIDE_PX, SIDE_PX, 3)) + 120 * (instances > 0)[..., None]
    return SampleRow(
        id=f"image [{number}]",
        group=f"slide {number}",
        stratum=f"organ {number % 2}",
        mpp=0.5,
        size=(SIDE_PX - 4, SIDE_PX),
        image=image.astype(np.uint8),
        instances=instances,
        ignore=ignore,
        image_digest=number.to_bytes(32, "big"),
        mask_digest=(1000 + number).to_bytes(32, "big"),
    )


def ignore_everything(store: Store, sample_id: str) -> None:
    """Ignore every pixel of an image; its embedding and digests stay."""
    row = store.row_of(sample_id)
    (sample,) = store.read_samples([row])
    store.replace(row, replace(sample, ignore=np.ones_like(sample.ignore)))


def drawn_embedding(sample: SampleRow) -> np.ndarray:
    """(256, 64, 64): the nuclei in the first channel, a positional ramp in the second, noise in a few others."""
    embedding = np.zeros((256, 64, 64), np.float32)
    embedding[0] = np.kron(sample.instances > 0, np.ones((2, 2)))
    embedding[1] = np.linspace(0, 1, 64)
    embedding[2:8] = np.random.default_rng(sample.image_digest[-1]).normal(size=(6, 64, 64))
    return embedding


@pytest.fixture
def batch() -> Batch:
    """The ids 0 to 15; every pixel of image, target and ignore comes from one map, the embedding from its cells."""
    random = torch.Generator().manual_seed(0)
    embedding = torch.rand((16, 256, 64, 64), generator=random).half()
    image = embedding[:, :3].float()
    return Batch(tuple(map(str, range(16))), image, (image[:, 0] > 0.5).long(), image[:, 1] > 0.5, embedding)


@pytest.fixture(scope="session")
def pristine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the store `synthetic` of twelve rows, embedded once; never to be changed."""
    cache = tmp_path_factory.mktemp("cache")
    rows = [drawn_row(number) for number in range(N_ROWS)]
    store = Store.create(
        cache / "synthetic.zarr",
        dataset="synthetic",
        source="drawn",
        preparation={"side_px": str(SIDE_PX), "stain": "none"},
        rows=rows,
    )
    key = Key({"architecture": "random", "seed": "0", "precision": "float32", "format": "f16"})
    embeddings = store.embeddings(key, recorded={"note": "drawn for a test"})
    embeddings.write(range(N_ROWS), np.stack([drawn_embedding(row) for row in rows]))
    return cache


@pytest.fixture
def cache(pristine_cache: Path, tmp_path: Path) -> Path:
    """A copy of that cache that a test may change."""
    shutil.copytree(pristine_cache, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def training(pristine_cache: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Configures a training of seconds on that cache; a test names what it wants otherwise."""

    def configure(**wanted: object) -> TrainConfig:
        given: dict[str, object] = {
            "dataset": "synthetic",
            "cache": str(pristine_cache),
            "encoder": "random",
            "width": 2,
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "device": "cpu",
            "threads": 1,
            "run": tmp_path / "run",
        }
        return TrainConfig(**{**given, **wanted})

    return configure


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, instant_encoder: str) -> Path:
    """A cache with drawn images, their orientations and crops, by a teacher whose channels are pixels of the image."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "parts.toml").write_text(CROPS)
    for views in ("d4", str(folder / "parts.toml")):
        config = EmbedConfig(
            dataset="synthetic", encoder=instant_encoder, views=views, limit=10, cache=str(folder), threads=1
        )
        embed(config, lambda done, total, what: None)
    return folder


CROPS = 'variants = 2\n[crop]\nscale = [0.4, 0.9]\n[[transform]]\nname = "HEDJitter"\n'


@pytest.fixture
def full_disk() -> Callable[[str], Any]:
    """Makes a context in which the disk is full as soon as a file of that name is written."""

    @contextmanager
    def full(name: str) -> Iterator[None]:
        fsync = os.fsync

        def fills_up(descriptor: int) -> None:
            if Path(f"/proc/self/fd/{descriptor}").readlink().name == f".{name}.part":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", fills_up)
            yield

    return full


@pytest.fixture(scope="session")
def trained(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that cache and finished runs on it, never to be changed.

    guided and multiscale are guided by the embeddings, plain-f0 and plain-f1 are two folds without guidance.
    """
    place = tmp_path_factory.mktemp("trained")
    shutil.copytree(pristine_cache, place / "cache")
    guided = TrainConfig(
        dataset="synthetic", cache=str(place / "cache"), encoder="random", width=2, epochs=1, batch_size=4,
        learning_rate=3e-3, device="cpu", threads=1, split="kfold", run=place / "guided",
    )  # fmt: skip
    plain = replace(guided, fusion="none", run=place / "plain-f0")
    train(guided)
    train(replace(guided, fusion="multiscale", run=place / "multiscale"))
    train(plain)
    train(replace(plain, fold=1, run=place / "plain-f1"))
    return place


def export_encoder(folder: Path) -> str:
    """The name of an exported encoder; the content of its file does not matter to embeddings that are cached."""
    (folder / "encoder.onnx").write_bytes(b"weights of an encoder")
    return f"onnx:{folder / 'encoder.onnx'}"


def add_embeddings(cache: Path, encoder: str) -> None:
    """Store the embeddings of the random encoder under the name of another one as well."""
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    key = Key({**asked_identity(encoder), "precision": "float32", "format": "f16"})
    random = store.embeddings(store.find({"architecture": "random"}))
    rows = range(store.n_rows)
    store.embeddings(key, recorded={}).write(rows, np.asarray(random.read(rows)))


@pytest.fixture
def exported_encoder(tmp_path: Path) -> str:
    """The name of an exported encoder."""
    return export_encoder(tmp_path)


@pytest.fixture
def real_cache(cache: Path, exported_encoder: str) -> Path:
    """The cache with embeddings of that encoder in addition to those of random weights."""
    add_embeddings(cache, exported_encoder)
    return cache


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """How to reach an S3 server that listens on the loopback interface alone; its only bucket is called `bucket`."""
    boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in S3_ENVIRONMENT.items():
            patched.setenv(name, value)  # before moto: it takes the credentials that are there
        started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        started.start()
        endpoint = "http://{}:{}".format(*started.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    yield {**S3_ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint}
    started.stop()


S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # no credentials are asked of a cloud machine
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_MAX_ATTEMPTS": "1",
}


@pytest.fixture
def s3(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty place in a bucket, reached by what the environment says, as users reach theirs."""
    s3fs = pytest.importorskip("s3fs")
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    yield f"s3://bucket/{tmp_path.name}"
    forget_connections(s3fs.S3FileSystem)


def forget_connections(file_system: Any) -> None:
    """Close what is open: a connection that stays would not look at the environment again."""

    async def closed(files: Any) -> None:
        if files._s3 is not None:
            await files._s3.close()

    for files in file_system._cache.values():
        zarr_sync(closed(files)) if files.asynchronous else fsspec.asyn.sync(files.loop, closed, files)
    file_system.clear_instance_cache()


class InThisProcess:
    """Trains in this process, which saves starting an interpreter; reports a crash where `crash` says so."""

    def __init__(self, crash: Callable[[TrainConfig], bool] = lambda run: False) -> None:
        self.crash, self.trained = crash, []

    def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
        self.trained.append(run.name)
        if self.crash(run):
            return "it was killed by SIGKILL"
        on_output(run, "epoch 1/1")
        train(run)
        return ""

    def stop(self) -> None:
        raise AssertionError("nothing was interrupted")


@pytest.fixture
def in_this_process() -> type[InThisProcess]:
    """A training runner for tables that starts no interpreters."""
    return InThisProcess
