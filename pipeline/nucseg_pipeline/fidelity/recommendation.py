"""The recommendation in words: which replay and which changes of colour to use, what they cost, and the commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

from nucseg.metrics.statistics import Interval
from nucseg_cache.formats import EMBEDDING_SHAPE, format_named
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.fidelity.motions import TURNS
from nucseg_pipeline.fidelity.references import CORRECTED, LEARNED, PLAIN
from nucseg_pipeline.fidelity.results import TOLERATED, Choice, ColourChoice
from nucseg_pipeline.fidelity.setup import FidelitySetup
from nucseg_pipeline.formatting import bounds, number, signed
from nucseg_pipeline.runs.selection import embed_command

N_VIEWS = 7
"""Exact views of D4 per image, without the identity."""


def advise(choice: Choice, setup: FidelitySetup, seconds: float | None) -> tuple[str, ...]:
    """Recommend a replay for a family of motions: the errors, the reason, the commands, and whether views pay off.

    `seconds` is the measured time of an encoding; None if nothing was encoded.
    """
    config = setup.config
    errors = ", ".join(f"{name} {number(error.value)} ({bounds(error)})" for name, error in choice.errors.items())
    if choice.errors[PLAIN].value:
        share = choice.errors[choice.replay].value / choice.errors[PLAIN].value
        errors += f"; {choice.replay} has {share:.2f} times the error of plain"
    lines = [f"For {choice.family}, use replay {choice.replay}. Error: {errors}. {_reason(choice, config)}"]
    if choice.replay == LEARNED and setup.n_exact(setup.calibration) < len(setup.calibration):
        # only drawn images of the training part are used for the fit
        n_images = len(setup.present)
        n_drawn = min(-(-config.calibration_images * n_images // len(setup.parts.train)), n_images)
        lines += [f"  It is fitted once to exact views of a few images: {_cost(N_VIEWS * n_drawn, setup, seconds)}."]
        lines += [f"    {_embed(setup, n_drawn)}"]
    if choice.augmentation:
        lines.append(f"    {_train(config, augmentation=choice.augmentation, replay=choice.replay)}")
    return (*lines, *_views(choice, setup, seconds))


def advise_colours(
    choice: ColourChoice, replays: Sequence[Choice], setup: FidelitySetup, seconds: float | None
) -> tuple[str, ...]:
    """Say which changes of colour may be made while the embedding stays, with the commands.

    `replays` are the recommendations for motions, which the command for training follows.
    """
    source = "measured here" if choice.is_measured else "not measured here; this is MobileSAM's on NuInsSeg"
    lines = [
        f"For colours, an embedding may stay where the error is at most {number(choice.limit)}: {TOLERATED:g} times "
        f"the error of corrected replay under flips and turns, {number(choice.replay_error)} ({source})."
    ]
    if choice.fitting:
        lines.append(f"  These changes may be made: {_errors(choice, choice.fitting)}.")
    if choice.recipe:
        lines += [
            f"  Train with the recipe {choice.recipe}: of the recipes that may be used, it changes the images most, by "
            f"{choice.grey_levels[choice.recipe]:.0f} of 255 grey levels on average.",
            f"    {_train_with_colours(setup.config, choice.recipe, replays)}",
        ]
    return (*lines, *_colour_views(choice, setup, seconds))


def _colour_views(choice: ColourChoice, setup: FidelitySetup, seconds: float | None) -> Iterator[str]:
    """What is too large for a cached embedding, and the commands for views of the recipes among it."""
    exceeding = [name for name in choice.errors if name not in choice.fitting]
    if not exceeding:
        return
    yield (
        f"  These change the embedding too much: {_errors(choice, exceeding)}. Leave them out of recipes for "
        "--photometric, or encode the images in such colours as views."
    )
    for recipe in (name for name in exceeding if name in choice.recipes):
        views = Path(recipe).name.removesuffix(".toml")  # as the views of a file are called
        yield f"  Each variant of {views} costs once {_cost(len(setup.present), setup, seconds)}."
        yield f"    {_embed(setup, None, views)}"
        yield f"    {_train(setup.config, views=views)}"


def _errors(choice: ColourChoice, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {number(choice.errors[name].value)}" for name in names)


def _train_with_colours(config: FidelityConfig, recipe: str, replays: Sequence[Choice]) -> str:
    """The command for a training with this recipe, and with the replay for flips and turns if one was chosen."""
    for choice in replays:
        if choice.family == TURNS:
            return _train(config, augmentation=choice.augmentation, replay=choice.replay, photometric=recipe)
    return _train(config, photometric=recipe)


def _cost(n: int, setup: FidelitySetup, seconds: float | None) -> str:
    """The cost of `n` exact views, in words."""
    time = "" if seconds is None else f", {max(n * seconds / 60, 1):.0f} min at the rate measured here,"
    n_bytes = prod(EMBEDDING_SHAPE) * np.dtype(format_named(setup.key.fields["format"]).dtype).itemsize
    return f"{n} encodings{time} and at most {n * n_bytes / 2**20:,.0f} MiB of disk"


def _reason(choice: Choice, config: FidelityConfig) -> str:
    if choice.against is not None:
        return f"Paired by image, the error changes by {_signed(choice.against)} from corrected replay, the default."
    if LEARNED not in choice.errors:
        return f"Learned replay was not measured: calibration_images is {config.calibration_images}."
    if choice.errors[LEARNED] == choice.errors[CORRECTED]:
        return "These motions contain no flip or turn, so learned replay equals corrected."
    return "Learned replay is not clearly better on unseen images."


def _views(choice: Choice, setup: FidelitySetup, seconds: float | None) -> tuple[str, ...]:
    if not choice.views.value:
        return ("  Exact views would change nothing, because these motions contain no flip or turn.",)
    if not choice.views_are_better:
        return (f"  Exact views do not pay off: with them the error changes by {_signed(choice.views)}.",)
    effect = "have no error by definition" if choice.family == TURNS else f"change the error by {_signed(choice.views)}"
    n_missing = len(setup.present) - setup.n_exact(setup.present)
    if n_missing:
        cost = _cost(N_VIEWS * n_missing, setup, seconds)
        lines = [f"  Exact views {effect} and cost once {cost}.", f"    {_embed(setup, None)}"]
    else:
        lines = [f"  Exact views {effect} and are all in the store."]
    if choice.augmentation:
        lines += [f"    {_train(setup.config, augmentation=choice.augmentation, views='d4')}"]
    return tuple(lines)


def _signed(difference: Interval) -> str:
    return f"{signed(difference.value)} ({bounds(difference, write=signed)})"


def _embed(setup: FidelitySetup, n_drawn: int | None, views: str = "d4") -> str:
    return embed_command(setup.store, setup.key, setup.config.training, views=views, view_images=n_drawn)


def _train(config: FidelityConfig, **stated: str) -> str:
    # stated first: the configuration would hold the content of a file of transforms in place of its name
    return command(config.training, without=tuple(stated), always=("encoder",), **stated)
