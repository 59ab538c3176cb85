"""Training curves: loss and validation Dice by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nucseg.figures.style import line_style, tidy


@dataclass(frozen=True)
class Epoch:
    """Mean loss over training images and mean foreground Dice over validation images of an epoch, counted from 1."""

    epoch: int
    train_loss: float
    validation_dice: float


def training_curves(histories: Mapping[str, Sequence[Epoch]]) -> Figure:
    """Draw training loss and validation Dice of several runs, by run name; a dot marks the best epoch."""
    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for position, (name, history) in enumerate(histories.items()):
        if not history:
            continue
        epochs = [row.epoch for row in history]
        dice = [row.validation_dice for row in history]
        style = line_style(position)
        upper.plot(epochs, [row.train_loss for row in history], label=name, marker=".", markersize=3, **style)
        lower.plot(epochs, dice, label=name, **style)
        best = dice.index(max(dice))
        lower.plot(epochs[best], dice[best], "o", color=style["color"], markersize=5)
    tidy(upper, ylabel="training loss")
    tidy(lower, ylabel="validation Dice", xlabel="epoch")
    lower.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", fontsize=8, frameon=False)
    return figure
