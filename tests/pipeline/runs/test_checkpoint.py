"""A checkpoint carries values only, and damage is found."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nucseg.errors import ConfigError
from nucseg_pipeline.runs.checkpoint import load_checkpoint, save_checkpoint


class Payload:
    """What a hostile checkpoint would hold: unpickling it runs a command."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.touched),)


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    content = {"model": {"weight": torch.randn(3, 2)}, "optimizer": {"groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}}
    save_checkpoint(tmp_path / "last.pt", content, "made from")
    back = load_checkpoint(tmp_path / "last.pt", "made from")
    assert torch.equal(back["model"]["weight"], content["model"]["weight"])
    assert back["optimizer"] == content["optimizer"]


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    for name in ("one.pt", "other.pt"):
        save_checkpoint(tmp_path / name, {"model": torch.arange(5)}, "made from")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


@pytest.mark.parametrize("n_bytes", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_named_with_the_way_out(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": torch.arange(1000)}, "made from")
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ConfigError, match=r"last\.pt cannot be read: \S+ .{5,}\. It is truncated.*train again"):
        load_checkpoint(path, "made from")


def test_a_flipped_bit_is_found_wherever_it_counts(tmp_path: Path) -> None:
    """torch.load looks at no CRC: it gives back other weights, and says nothing."""
    path, random = tmp_path / "last.pt", np.random.default_rng(0)
    weights = torch.arange(2000.0)
    save_checkpoint(path, {"model": weights, "epoch": 3}, "made from")
    sound, n_found = path.read_bytes(), 0
    for bit in random.integers(0, 8 * len(sound), 150):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            back = load_checkpoint(path, "made from")
        except ConfigError:
            n_found += 1
        else:
            assert torch.equal(back["model"], weights)
            assert back["epoch"] == 3
    assert n_found > 100


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "last.pt", tmp_path / "touched"
    torch.save({"format": 1, "inputs": "made from", "model": Payload(touched)}, path)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be read"):
        load_checkpoint(path, "made from")
    path.write_bytes(pickle.dumps(Payload(touched)))
    with pytest.raises(ConfigError, match=r"last\.pt cannot be read"):
        load_checkpoint(path, "made from")
    assert not touched.exists()


@pytest.mark.parametrize("content", [{"format": 99}, {"model": 1}, [1, 2], torch.arange(3)])
def test_a_checkpoint_of_another_format_is_refused_with_both_numbers(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="this version reads 1"):
        load_checkpoint(tmp_path / "last.pt", "made from")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", {"model": 1}, "made from this")
    with pytest.raises(ConfigError, match="of another run"):
        load_checkpoint(tmp_path / "best.pt", "made from that")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no .*best\.pt"):
        load_checkpoint(tmp_path / "best.pt", "made from")
