"""The fastest exact way of attention is found, and a GPU's batch by its memory."""

from collections.abc import Callable, Iterator

import pytest
import torch

from nucseg.encoders import VitShape, open_encoder
from nucseg.encoders import autotune as tuning
from nucseg.encoders.attention import VARIANTS, attend_mask
from nucseg.encoders.autotune import fastest, tune, use_attention
from nucseg.encoders.device import Hardware
from nucseg.encoders.vit import build_published, build_vit

SHAPE = VitShape(embed_dim=32, depth=3, num_heads=2, global_blocks=(1,), window_cells=4)
CPU = torch.device("cpu")
PX = 128


@pytest.fixture
def model() -> torch.nn.Module:
    return small(Hardware(CPU, "float32"))


def small(hardware: Hardware) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_published(SHAPE, input_px=PX).state_dict()
    return build_vit(SHAPE, state, hardware, input_px=PX)


def ways_in_use(model: torch.nn.Module) -> list[str]:
    names = {function: name for name, function in VARIANTS.items()}
    return [names[block.attention.attend] for block in model.get_submodule("blocks").children()]


def clock_of(seconds: dict[str, float], model: torch.nn.Module, block: int) -> Callable[[object], float]:
    """Tell the time that the way in use is said to take."""
    return lambda call: seconds[ways_in_use(model)[block]]


@pytest.mark.parametrize(("windows", "block"), [(False, 1), (True, 0)])
def test_the_fastest_way_is_chosen_for_each_kind_of_block(model: torch.nn.Module, windows: bool, block: int) -> None:
    for winner in ("mask", "columns"):
        seconds = {"mask": 2.0, "columns": 2.0, winner: 1.0}
        clock = clock_of(seconds, model, block)

        assert fastest(model, windows, 2, Hardware(CPU, "float32"), clock, ("columns", "mask")) == winner


def broken(*_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel for this")


def wrong(*args: torch.Tensor) -> torch.Tensor:
    return attend_mask(*args) * 1.5


def not_finite(*args: torch.Tensor) -> torch.Tensor:
    return attend_mask(*args) * torch.nan


@pytest.mark.parametrize("bad", [broken, wrong, not_finite])
def test_a_way_that_fails_or_is_wrong_is_left_out(
    model: torch.nn.Module, bad: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "VARIANTS", {**VARIANTS, "bad": bad})
    calls: Iterator[float] = iter((3.0, 2.0, 1.0))

    found = fastest(model, False, 1, Hardware(CPU, "float32"), lambda call: next(calls), ("bad", "columns"))

    assert found == "columns"


def test_where_every_way_fails_the_safe_one_is_kept(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "VARIANTS", dict.fromkeys(VARIANTS, broken))

    assert fastest(model, False, 1, Hardware(CPU, "float32"), lambda call: 1.0) == "mask"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cpu_has_a_fixed_choice_and_takes_one_image_at_a_time(precision: str) -> None:
    hardware = Hardware(CPU, precision)
    model = small(hardware)

    use_attention(model, "columns", windows=False)
    assert tune(model, hardware, None, PX) == (1, "mask over the grid, mask in windows")
    assert tune(model, hardware, 5, PX)[0] == 5
    assert ways_in_use(model) == ["mask", "mask", "mask"]


def test_on_cuda_both_kinds_are_timed_at_the_batch_that_memory_allows(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[bool, int]] = []

    def columns(model: object, windows: bool, batch_size: int, *_: object) -> str:
        timed.append((windows, batch_size))
        return "mask" if windows else "columns"

    monkeypatch.setattr(tuning, "fastest", columns)
    monkeypatch.setattr(tuning, "batch_from_memory", lambda *_: 8)
    hardware = Hardware(torch.device("cuda"), "bfloat16")

    assert tune(model, hardware, None, PX) == (8, "columns over the grid, mask in windows")
    assert tune(model, hardware, 3, PX)[0] == 3
    assert timed == [(False, 8), (True, 8), (False, 3), (True, 3)]
    assert ways_in_use(model) == ["mask", "columns", "mask"]


def test_timing_leaves_torchs_random_state_alone(model: torch.nn.Module) -> None:
    before = torch.get_rng_state()
    fastest(model, False, 1, Hardware(CPU, "float32"), lambda call: 1.0, ("mask",))

    assert torch.equal(torch.get_rng_state(), before)


def test_the_way_of_attention_is_recorded_but_no_part_of_the_identity() -> None:
    encoder = open_encoder("random", device="cpu", precision="bfloat16")

    assert encoder.provenance["attention"] == "mask over the grid, mask in windows"
    assert "attention" not in encoder.identity


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_its_way_and_its_batch() -> None:
    hardware = Hardware(torch.device("cuda"), "float32")
    model = small(hardware)

    batch_size, ways = tune(model, hardware, None, PX)

    assert batch_size >= 1
    assert "over the grid" in ways
