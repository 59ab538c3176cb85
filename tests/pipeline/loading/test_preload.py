"""Where rows are kept: on the device first, then on the host, else nowhere."""

import pytest
import torch

from nucseg_pipeline.loading.preload import choose_preload_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("preload", "device", "on_device", "on_host", "place"),
    [
        ("auto", CUDA, 2.1, 0, CUDA),
        ("auto", CUDA, 1.9, 2.1, CPU),
        ("auto", CUDA, 1.9, 1.9, None),
        ("on", CUDA, 2.1, 0, CUDA),
        ("on", CUDA, 1.9, 0, CPU),
        ("off", CUDA, 9, 9, None),
        ("auto", CPU, 9, 2.1, CPU),
        ("auto", CPU, 9, 1.9, None),
        ("on", CPU, 9, 0, CPU),
        ("off", CPU, 9, 9, None),
    ],
)
def test_rows_are_kept_where_they_take_less_than_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
    preload: str,
    device: torch.device,
    on_device: float,
    on_host: float,
    place: torch.device | None,
) -> None:
    monkeypatch.setattr("nucseg_pipeline.loading.preload.available_device_memory", lambda asked: on_device * 1000)
    monkeypatch.setattr("nucseg_pipeline.loading.preload.available_memory", lambda: on_host * 1000)

    assert choose_preload_device(lambda: 1000, preload, device) == place


@pytest.mark.parametrize("preload", ["on", "off"])
def test_what_rows_take_is_not_asked_where_it_does_not_matter(preload: str) -> None:
    def asked() -> int:
        raise AssertionError("a row was read")

    assert choose_preload_device(asked, preload, CPU) == (CPU if preload == "on" else None)
