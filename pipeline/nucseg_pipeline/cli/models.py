"""`nucseg models`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli.console import out, table

if TYPE_CHECKING:
    from nucseg.models import Costs

_FOOTNOTES = (
    "FLOPs: multiplications and additions (2 per pair) in one forward pass of one image, without normalisation, "
    "activations, pooling and interpolation. The encoder of the embeddings is not included: it runs once, in "
    "`nucseg embed`; `nucseg fetch` downloads its weights.",
    "The networks of the U-Net3+ family convolve maps enlarged fourfold or more without computing the enlarged map, "
    "with the same result in fewer FLOPs than published.",
)


def models(
    model: Annotated[str | None, typer.Option(help="Show only this architecture.")] = None,
    fusion: Annotated[str | None, typer.Option(help="Show only this fusion.")] = None,
    width: Annotated[int, typer.Option(help="Channels at the finest level.")] = 32,
    input_px: Annotated[int, typer.Option(help="Side of the image in pixels, a multiple of 16.")] = 256,
) -> None:
    """List the networks, their sources, and the parameters and FLOPs of each with each fusion.

    Reads only: nothing is written.
    """
    from nucseg.models import ACTIVATIONS, FUSIONS, MODELS

    names, fusions = [model] if model else list(MODELS), [fusion] if fusion else list(FUSIONS)
    alone = {name: _count(name, "none", width, input_px) for name in names}
    # all networks share the encoder whose maps a fusion takes, so each fusion is counted once
    added = {name: _count(names[0], name, width, input_px) for name in fusions}
    rows = [
        (
            name,
            fusion_name,
            f"{cost.parameters + added[fusion_name].parameters - alone[names[0]].parameters:,}",
            f"{(cost.flops + added[fusion_name].flops - alone[names[0]].flops) / 1e9:.2f}",
        )
        for name, cost in alone.items()
        for fusion_name in fusions
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
