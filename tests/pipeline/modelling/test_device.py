"""The device of a training is the requested one, or an error says what the machine has."""

import pytest
import torch

from nucseg.errors import ConfigError
from nucseg_pipeline.modelling.device import choose_device


def machine(monkeypatch: pytest.MonkeyPatch, n_cuda: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("name", "message"), [("cuda", "finds 0 CUDA"), ("cuda:1", "finds 0 CUDA"), ("mps", "has none")]
)
def test_a_missing_device_is_refused_with_the_way_out(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, n_cuda=0, mps=False)
    with pytest.raises(ConfigError, match=rf"device is {name}.*{message}.*Use auto or cpu"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "n_cuda", "mps", "expected"),
    [
        ("auto", 0, False, torch.device("cpu")),
        ("auto", 0, True, torch.device("mps")),
        ("auto", 2, True, torch.device("cuda")),
        ("cuda", 2, False, torch.device("cuda", 0)),
        ("cuda:1", 2, False, torch.device("cuda", 1)),
        ("cpu", 2, True, torch.device("cpu")),
    ],
)
def test_auto_is_the_best_device_and_a_name_is_its_device(
    name: str, n_cuda: int, mps: bool, expected: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, n_cuda, mps)
    assert choose_device(name) == expected
