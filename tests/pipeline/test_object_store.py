"""The stages on an S3 server: the same store, object by object, the same training, and messages that name the fix."""

import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from nucseg.encoders import Encoder
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import Store, StoreAccessError, verify
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.embed import stage as embedding_stage
from nucseg_pipeline.embed.stage import EmbedResult, embed
from nucseg_pipeline.runs.checkpoint import load_checkpoint
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.train import stage as training_stage
from nucseg_pipeline.train.stage import train

N_IMAGES = 3


class NoiseEncoder(Encoder):
    """Noise that depends on the image alone; takes no time."""

    identity = {"architecture": "noise", "precision": "float32"}  # noqa: RUF012
    provenance = {"device": "cpu"}  # noqa: RUF012
    batch_size = 2

    def run(self, images: Sequence[Any]) -> Any:
        seeds = [zlib.crc32(image.tobytes()) for image in images]
        return np.stack([np.random.default_rng(seed).normal(size=(256, 64, 64)) for seed in seeds]).astype(np.float32)

    def _embed(self, inputs: Any) -> Any:
        raise AssertionError("run is overridden")


@pytest.fixture(autouse=True)
def noise_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_stage, "open_encoder", lambda *args, **options: NoiseEncoder())


def run(cache: str, **options: Any) -> EmbedResult:
    given = {"dataset": "synthetic", "encoder": "random", "limit": N_IMAGES, "view_images": 1, "cache": cache}
    return embed(EmbedConfig(**{**given, **options}), lambda done, total, what: None)


def objects(location: str) -> dict[str, bytes]:
    """The content below a folder or a URL, by relative name."""
    files, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
    return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}


def test_a_store_in_a_bucket_is_that_of_a_folder_object_by_object(s3: str, tmp_path: Path) -> None:
    in_folder, in_bucket = run(str(tmp_path), format="i8", views="stain"), run(s3, format="i8", views="stain")

    assert in_bucket.location == f"{s3}/synthetic.zarr"
    assert in_bucket.n_encoded == in_folder.n_encoded == N_IMAGES + 4
    assert objects(in_bucket.location) == objects(in_folder.location)
    assert verify(in_bucket.location).findings == ()


def test_only_what_is_missing_in_a_bucket_is_encoded(s3: str) -> None:
    result = run(s3)
    undisturbed = objects(result.location)
    files, root = fsspec.core.url_to_fs(result.location)
    rows = f"{root}/embeddings/{result.key.hash}/identity/values/c"
    files.rm_file(f"{rows}/1/0/0/0")
    files.pipe_file(f"{rows}/2/0/0/0", b"cut short")

    again = run(s3)

    assert (again.n_encoded, again.n_embedded) == (2, N_IMAGES)
    assert objects(result.location) == undisturbed
    assert run(s3).n_encoded == 0


def test_a_training_from_a_bucket_is_that_from_a_folder(
    s3: str, pristine_cache: Path, training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_stage, "choose_rule", lambda *args: InstanceRule(threshold=0.5))
    files, root = fsspec.core.url_to_fs(s3)
    files.put(str(pristine_cache), root, recursive=True)
    weights = []

    for cache in (s3, str(pristine_cache)):
        result = train(training(cache=cache, epochs=1, run=tmp_path / str(len(weights))))
        weights.append(load_checkpoint(result.folder / "last.pt", RunFolder(result.folder).inputs().fingerprint))

    assert RunFolder(tmp_path / "0").inputs().store == f"{s3}/synthetic.zarr"
    for name, tensor in weights[0]["model"].items():
        assert torch.equal(tensor, weights[1]["model"][name]), name


@pytest.mark.parametrize(
    ("place", "environment", "message"),
    [
        ("s3://nowhere/cache", {}, r"bucket does not exist\. Create the missing bucket"),
        ("s3://bucket/cache", {"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None}, r"credentials\. .*AWS_ACC"),
        ("s3://bucket/cache", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, r"127\.0\.0\.1:9/.*network.*AWS_ENDPOINT"),
        ("s4://bucket/cache", {}, r"Protocol not known: s4.*--cache"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_reported_with_the_fix(
    s3: str, place: str, environment: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)

    with pytest.raises(StoreAccessError, match=message):
        run(place)


def test_a_bucket_that_cannot_be_reached_is_never_called_damaged(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(run(s3).location)
    embeddings = store.embeddings(store.keys()[0])
    embeddings.missing()

    async def unreachable(*args: Any, **options: Any) -> bytes:
        from botocore.exceptions import EndpointConnectionError

        raise EndpointConnectionError(endpoint_url="http://bucket")

    monkeypatch.setattr(type(fsspec.filesystem("s3")), "_cat_file", unreachable)

    for reads in (lambda: embeddings.try_read([0]), lambda: store.try_read_samples([0]), embeddings.missing):
        with pytest.raises(StoreAccessError, match="Could not connect"):
            reads()


def test_without_s3fs_the_message_says_what_to_install(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # as if s3fs was never loaded

    with pytest.raises(StoreAccessError, match=r"pip install nucseg\[s3\]"):
        run(s3)
