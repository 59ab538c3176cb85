"""`nucseg models`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli.console import out, table

if TYPE_CHECKING:
    from nucseg.models import Costs

_FOOTNOTES = (
    "FLOPs: multiplications and additions (2 for each pair) of what runs in one forward pass of one image; "
    "normalisation, activations, pooling and interpolation not counted. "
    "The embedding's encoder is not part of it: it runs once, in `nucseg embed`; `nucseg fetch` gets its weights.",
    "The networks of the U-Net3+ family convolve a map enlarged fourfold or more without making it, which gives the "
    "same with fewer FLOPs than its description.",
)


def models(
    model: Annotated[str | None, typer.Option(help="This architecture alone.")] = None,
    fusion: Annotated[str | None, typer.Option(help="This fusion alone.")] = None,
    width: Annotated[int, typer.Option(help="Channels of the finest level.")] = 32,
    input_px: Annotated[int, typer.Option(help="Side of the image, a multiple of 16.")] = 256,
) -> None:
    """Show which networks there are, where each comes from, and what it costs with each way of guiding it.

    Reads only: nothing is computed but the costs.
    """
    from nucseg.models import ACTIVATIONS, FUSIONS, MODELS

    names, fusions = [model] if model else list(MODELS), [fusion] if fusion else list(FUSIONS)
    alone = {name: _count(name, "none", width, input_px) for name in names}
    # a fusion sees the encoder's maps, which all networks share: it is counted once, not once for each
    added = {one: _count(names[0], one, width, input_px) for one in fusions}
    rows = [
        (
            name,
            one,
            f"{cost.parameters + added[one].parameters - alone[names[0]].parameters:,}",
            f"{(cost.flops + added[one].flops - alone[names[0]].flops) / 1e9:.2f}",
        )
        for name, cost in alone.items()
        for one in fusions
    ]
    shown = table("", ("model", "fusion", "parameters", "GFLOPs"), rows)
    shown.title, shown.columns[1].justify = None, "left"
    out.print(f"width {width}, one image of {input_px} px:")
    out.print(shown)
    for name in names:
        out.print(f"{name}: {MODELS[name].source}; activation {MODELS[name].own_activation}")
    out.print(f"Other activations: `nucseg train --activation` takes {', '.join(ACTIVATIONS)}.")
    for note in _FOOTNOTES:
        out.print(textwrap.fill(note, out.width))


def _count(model: str, fusion: str, width: int, input_px: int) -> Costs:
    import torch

    from nucseg.models import ModelConfig, build_model, count_costs

    with torch.device("meta"):  # shapes without weights
        return count_costs(build_model(model, ModelConfig(width=width, fusion=fusion)), input_px)
