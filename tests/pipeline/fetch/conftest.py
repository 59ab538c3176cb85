"""A server that publishes small data sets and weights, and calls of `fetch` that give up quickly."""

import hashlib
import io
import json
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import xxhash
from PIL import Image

from nucseg.encoders import ARCHITECTURES, VitShape
from nucseg.encoders.vit import build_published
from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.connection import RetryPolicy
from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.fetch.stage import fetch

RECORD, ARCHIVE, WEIGHTS = "/api/records/1", "/files/NuInsSeg.zip/content", "/sam_vit_b_01ec64.pth"
N_IMAGES = 3
TINY = VitShape(embed_dim=16, depth=1, num_heads=2, global_blocks=(), window_cells=8)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requests to the server of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def quick() -> RetryPolicy:
    """Gives up within tenths of a second."""
    return RetryPolicy(connect_s=1, read_s=0.3, attempts=3, backoff_s=0.001)


@pytest.fixture
def max_file_size() -> Callable[[int], AbstractContextManager[None]]:
    """Within the block, writing more than so many bytes to a file fails as on a full disk."""

    @contextmanager
    def limit(n_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def written(write: Callable[[Any], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def png(values: np.ndarray) -> bytes:
    return written(lambda file: Image.fromarray(values).save(file, "png"))


def tif(values: np.ndarray) -> bytes:
    return written(lambda file: tifffile.imwrite(file, values))


def sample(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of 32 px, and its instance map of two nuclei."""
    instances = np.zeros((32, 32), np.uint16)
    instances[2:8, 2:8], instances[12:20, 12:20] = 1, 300
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype(np.uint8), instances


def nuinsseg_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(N_IMAGES):
        image, instances = sample(number)
        files[f"NuInsSeg/human bladder/tissue images/b_{number}.png"] = png(image)
        files[f"NuInsSeg/human bladder/label masks modify/b_{number}.tif"] = tif(instances)
    return files


def dsb2018_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(N_IMAGES):
        image, instances = sample(number)
        files[f"id{number}/images/id{number}.png"] = png(image)
        files[f"id{number}/masks/1.png"] = png(((instances == 1) * 255).astype(np.uint8))
    return files


def cryonuseg_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(1, N_IMAGES + 1):
        image, instances = sample(number)
        files[f"tissue images/Human_Skin_{number:02d}.tif"] = tif(image)
        files[f"Annotator 1 (biologist)/label masks modify/Human_Skin_{number:02d}.tif"] = tif(instances)
    return files


def conic_files() -> dict[str, bytes]:
    images, labels = np.zeros((N_IMAGES, 256, 256, 3), np.uint8), np.zeros((N_IMAGES, 256, 256, 2), np.uint16)
    labels[:, :9, :9, 0] = 1
    return {
        "patch_info.csv": b"patch_info\n" + b"".join(b"consep_%d-0000\n" % n for n in range(N_IMAGES)),
        "images.npy": written(lambda file: np.save(file, images)),
        "labels.npy": written(lambda file: np.save(file, labels)),
    }


def checkpoint() -> bytes:
    """A checkpoint with the keys of SAM, for a tiny encoder."""
    torch.manual_seed(0)
    state = {f"image_encoder.{name}": value for name, value in build_published(TINY).state_dict().items()}
    return written(lambda file: torch.save(state, file))


@dataclass
class Published:
    """A server with three images of every data set, and the weights of a tiny vit_b."""

    server: Any
    answer: Any
    data: Path
    """$NUCSEG_DATA"""
    files: dict[str, dict[str, bytes]]
    """Data set -> path -> content."""
    weights: bytes

    @staticmethod
    def zipped(files: dict[str, bytes]) -> bytes:
        def write(file: io.BytesIO) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)

        return written(write)

    def put_nuinsseg(self, archive: bytes, *, record: bytes | None = None, **how: Any) -> str:
        """Publish an archive, answered as asked for, with a record that describes it (or another); its MD5."""
        described = archive if record is None else record
        digest = f"md5:{hashlib.md5(described).hexdigest()}"
        file = {"key": "NuInsSeg.zip", "checksum": digest, "links": {"self": f"{self.server.address}{ARCHIVE}"}}
        content = {"metadata": {"license": {"id": "cc-by-4.0"}}, "files": [file]}
        self.server.put(RECORD, self.answer(content=json.dumps(content).encode()))
        self.server.put(ARCHIVE, self.answer(content=archive, **how))
        return digest

    def put_dsb2018(self, archive: bytes) -> str:
        """Publish an archive, for which there is no digest; its URL."""
        return str(self.server.put("/stage1_train.zip", self.answer(content=archive)))

    def put_weights(self, content: bytes) -> str:
        """Publish a checkpoint; its URL."""
        return str(self.server.put(WEIGHTS, self.answer(content=content)))


@pytest.fixture
def published(file_server, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.chdir(tmp_path)
    for variable, name in (("NUCSEG_DATA", "data [sets]"), ("NUCSEG_WEIGHTS", "weights")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    files = {
        "nuinsseg": nuinsseg_files(),
        "dsb2018": dsb2018_files(),
        "cryonuseg": cryonuseg_files(),
        "conic": conic_files(),
    }
    published = Published(file_server, answer, tmp_path / "data [sets]", files, checkpoint())
    digest = xxhash.xxh128(published.weights).hexdigest()
    monkeypatch.setitem(ARCHITECTURES, "vit_b", replace(ARCHITECTURES["vit_b"], shape=TINY, file_digest=digest))
    published.put_nuinsseg(published.zipped(files["nuinsseg"]))
    changes: dict[str, dict[str, Any]] = {
        "nuinsseg": {"record": f"{file_server.address}{RECORD}"},
        "dsb2018": {"url": published.put_dsb2018(published.zipped(files["dsb2018"]))},
        "vit_b": {"url": published.put_weights(published.weights), "digest": f"xxh128:{digest}"},
    }
    for name in files:
        changes.setdefault(name, {})["release"] = replace(CATALOGUE[name].release, n_images=N_IMAGES)
    for name, fields in changes.items():
        monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], **fields))
    return published


@pytest.fixture
def get(quick: RetryPolicy) -> Callable[..., Any]:
    """Fetch by name, or from a local file."""

    def run(name: str, local: Path | None = None) -> Any:
        return fetch(name, local, progress=lambda *_: None, retry=quick)

    return run


@pytest.fixture
def failure(get: Callable[..., Any]) -> Callable[..., str]:
    """Why fetching fails."""

    def run(name: str, local: Path | None = None) -> str:
        with pytest.raises(FetchError) as caught:
            get(name, local)
        return str(caught.value)

    return run


@pytest.fixture(scope="session")
def files_in() -> Callable[[Path], dict[str, bytes]]:
    """The content of every file in a folder."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
