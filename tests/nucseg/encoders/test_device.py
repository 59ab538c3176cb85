"""Device, precision and batch size are chosen, or refused with a reason."""

import pytest
import torch

from nucseg.encoders.device import Hardware, batch_that_fits, choose_hardware
from nucseg.errors import ConfigError, EncoderError

GIB = 1 << 30


def test_a_cpu_computes_in_float32_by_default() -> None:
    hardware = choose_hardware("cpu", "auto")

    assert hardware.precision == "float32"
    assert hardware.dtype == torch.float32
    assert hardware.name.startswith("cpu: ")
    assert choose_hardware("cpu", "bfloat16").dtype == torch.bfloat16


def test_auto_takes_a_gpu_if_there_is_one_and_bfloat16_if_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)

        assert choose_hardware("auto", "auto") == Hardware(torch.device("cuda"), precision)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EncoderError, match="cuda:1, found 1 CUDA"):
        choose_hardware("cuda:1", "auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EncoderError, match=r"cuda, found 0 CUDA.*auto or cpu"):
        choose_hardware("cuda", "auto")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(EncoderError, match=r"mps, which this machine does not have"):
        choose_hardware("mps", "auto")


@pytest.mark.parametrize("name", ["gpu", "xpu", "meta", "cuda:x"])
def test_a_device_of_no_known_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' is not known\. Use auto, cpu, cuda"):
        choose_hardware(name, "auto")


def test_a_gpus_batch_is_a_power_of_two_that_grows_with_its_memory() -> None:
    sizes = [batch_that_fits(gib * GIB, GIB, GIB // 2) for gib in (0, 1, 2, 4, 8, 24, 80)]

    assert sizes == [1, 1, 2, 4, 8, 16, 16]
    assert batch_that_fits(8 * GIB, GIB, 0) == 16  # only the first image takes memory


@pytest.mark.parametrize("first_bytes", [1, GIB, 3 * GIB])
@pytest.mark.parametrize("next_bytes", [1, GIB // 3, GIB, 2 * GIB])
def test_what_a_batch_takes_leaves_a_fifth_of_the_memory_free(first_bytes: int, next_bytes: int) -> None:
    for free_bytes in range(0, 40 * GIB, GIB):
        size = batch_that_fits(free_bytes, first_bytes, next_bytes)

        takes = {n: first_bytes + (n - 1) * next_bytes for n in (size, 2 * size)}
        assert size == 1 or takes[size] <= 0.8 * free_bytes
        assert size == 16 or takes[2 * size] > 0.8 * free_bytes
