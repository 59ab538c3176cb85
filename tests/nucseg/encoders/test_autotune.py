"""The fastest exact attention variant is found, and a GPU's batch size by its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from nucseg.encoders import VitShape, autotune, open_encoder
from nucseg.encoders.attention import VARIANTS, attend_mask
from nucseg.encoders.autotune import Seconds, fastest, tune, use_attention
from nucseg.encoders.device import Hardware
from nucseg.encoders.vit import build_published, build_vit

SHAPE = VitShape(embed_dim=32, depth=3, num_heads=2, global_blocks=(1,), window_cells=4)
CPU = Hardware(torch.device("cpu"), "float32")
PX = 128


@pytest.fixture
def model() -> torch.nn.Module:
    return small(CPU)


def small(hardware: Hardware) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_published(SHAPE, input_px=PX).state_dict()
    return build_vit(SHAPE, state, hardware, input_px=PX)


def variants_in_use(model: torch.nn.Module) -> list[str]:
    names = {function: name for name, function in VARIANTS.items()}
    return [names[block.attention.attend] for block in model.get_submodule("blocks").children()]


@pytest.mark.parametrize(("windows", "block"), [(False, 1), (True, 0)])
@pytest.mark.parametrize("winner", ["mask", "columns"])
def test_the_fastest_variant_is_chosen_for_each_kind_of_block(
    model: torch.nn.Module, windows: bool, block: int, winner: str
) -> None:
    seconds = {"mask": 2.0, "columns": 2.0, winner: 1.0}

    found = fastest(
        model, windows, 2, CPU, lambda call: seconds[variants_in_use(model)[block]], candidates=("columns", "mask")
    )

    assert found == winner


def broken(*_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel for this")


def wrong(*args: torch.Tensor) -> torch.Tensor:
    return attend_mask(*args) * 1.5


def not_finite(*args: torch.Tensor) -> torch.Tensor:
    return attend_mask(*args) * torch.nan


@pytest.mark.parametrize("bad", [broken, wrong, not_finite])
def test_a_variant_that_fails_or_is_wrong_is_left_out(
    model: torch.nn.Module, bad: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS, "bad", bad)
    durations: Iterator[float] = iter((3.0, 2.0, 1.0))

    assert fastest(model, False, 1, CPU, lambda call: next(durations), candidates=("bad", "columns")) == "columns"


def test_if_every_variant_fails_the_reference_is_kept(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIANTS:
        monkeypatch.setitem(VARIANTS, name, broken)

    assert fastest(model, False, 1, CPU, lambda call: 1.0) == "mask"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cpu_has_a_fixed_choice_and_takes_one_image_at_a_time(precision: str) -> None:
    hardware = Hardware(torch.device("cpu"), precision)
    model = small(hardware)

    use_attention(model, "columns", windows=False)
    assert tune(model, hardware, None, PX) == (1, "mask over the grid, mask in windows")
    assert tune(model, hardware, 5, PX)[0] == 5
    assert variants_in_use(model) == ["mask", "mask", "mask"]


class FakeEvent:
    """A torch.cuda.Event that remembers the streams on which events were recorded."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    streams: list[str]

    def record(self, stream: str | None = None) -> None:
        self.streams.append(stream or torch.cuda.current_stream())

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: FakeEvent) -> float:
        return 250.0  # milliseconds


def test_on_cuda_both_kinds_are_timed_on_their_device_at_the_batch_that_memory_allows(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[bool, int, float]] = []

    def columns_over_the_grid(model: object, windows: bool, batch_size: int, _: object, seconds: Seconds) -> str:
        timed.append((windows, batch_size, seconds(lambda: None)))
        return "mask" if windows else "columns"

    monkeypatch.setattr(FakeEvent, "streams", [], raising=False)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device="cuda:0": f"stream of {device}")
    monkeypatch.setattr(autotune, "fastest", columns_over_the_grid)
    monkeypatch.setattr(autotune, "batch_from_memory", lambda *_: 8)
    hardware = Hardware(torch.device("cuda:1"), "bfloat16")

    assert tune(model, hardware, None, PX) == (8, "columns over the grid, mask in windows")
    assert tune(model, hardware, 3, PX)[0] == 3
    assert timed == [(False, 8, 0.25), (True, 8, 0.25), (False, 3, 0.25), (True, 3, 0.25)]
    assert set(FakeEvent.streams) == {"stream of cuda:1"}
    assert variants_in_use(model) == ["mask", "columns", "mask"]


def test_timing_leaves_torchs_random_state_alone(model: torch.nn.Module) -> None:
    before = torch.get_rng_state()
    fastest(model, False, 1, CPU, lambda call: 1.0, candidates=("mask",))

    assert torch.equal(torch.get_rng_state(), before)


def test_the_attention_variant_is_recorded_but_no_part_of_the_identity() -> None:
    encoder = open_encoder("random", device="cpu", precision="bfloat16")

    assert encoder.provenance["attention"] == "mask over the grid, mask in windows"
    assert "attention" not in encoder.identity


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_its_variant_and_its_batch() -> None:
    hardware = Hardware(torch.device("cuda"), "float32")

    batch_size, variants = tune(small(hardware), hardware, None, PX)

    assert batch_size >= 1
    assert "over the grid" in variants
