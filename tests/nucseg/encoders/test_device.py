"""Device, precision and batch size are chosen, or refused with a reason."""

import pytest
import torch

from nucseg.encoders import ARCHITECTURES
from nucseg.encoders.device import Hardware, batch_that_fits, choose_batch_size, choose_hardware
from nucseg.errors import ConfigError, EncoderError

VIT_B = ARCHITECTURES["vit_b"].shape
VIT_H = ARCHITECTURES["vit_h"].shape


def test_a_cpu_computes_in_float32_one_image_at_a_time_unless_told() -> None:
    hardware = choose_hardware("cpu", "auto")

    assert hardware.precision == "float32"
    assert hardware.dtype == torch.float32
    assert hardware.name.startswith("cpu: ")
    assert choose_batch_size(hardware, VIT_B) == 1
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
    with pytest.raises(ConfigError, match=rf"'{name}' is none of auto, cpu, cuda"):
        choose_hardware(name, "auto")


def test_a_gpus_batch_is_a_power_of_two_that_grows_with_its_memory_and_shrinks_with_the_network() -> None:
    sizes = [batch_that_fits(gib << 30, VIT_B, 2) for gib in (0, 1, 2, 4, 8, 24, 80)]

    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] == 16
    assert set(sizes) <= {1, 2, 4, 8, 16}
    assert batch_that_fits(6 << 30, VIT_H, 4) < batch_that_fits(6 << 30, VIT_B, 4) < batch_that_fits(6 << 30, VIT_B, 2)
