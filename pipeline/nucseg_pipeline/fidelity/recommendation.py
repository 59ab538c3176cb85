"""What to do about it, in words: which replay, what it costs, and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg.metrics.statistics import Interval
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.fidelity.motions import TURNS
from nucseg_pipeline.fidelity.references import CORRECTED, LEARNED, PLAIN
from nucseg_pipeline.fidelity.results import Choice
from nucseg_pipeline.formatting import bounds, number, signed

N_VIEWS = 7
"""Exact views of D4 beside the image itself."""


@dataclass(frozen=True)
class Costs:
    """What encodings take here."""

    n_images: int
    """Present in the store."""
    n_train: int
    """Of these, in the training part."""
    n_exact: int
    """Of these, with all exact views in the store."""
    is_calibrated: bool
    """Whether the calibration images have theirs in the store."""
    seconds: float | None
    """One encoding, measured; None where nothing was encoded."""
    mib: float
    """One stored embedding at most, in MiB."""

    def of_views(self, n_images: int) -> str:
        """The seven exact views of so many images, in words."""
        n = N_VIEWS * n_images
        time = "" if self.seconds is None else f", {max(n * self.seconds / 60, 1):.0f} min at the rate measured here,"
        return f"{n} encodings{time} and at most {n * self.mib:,.0f} MiB of disk"


def advise(choice: Choice, config: FidelityConfig, costs: Costs) -> tuple[str, ...]:
    """Say for one family of moves what to use: the errors, the reason, the commands, and whether views pay."""
    told = ", ".join(f"{name} {number(error.value)} ({bounds(error)})" for name, error in choice.errors.items())
    if choice.errors[PLAIN].value:
        told += (
            f"; {choice.replay} makes {choice.errors[choice.replay].value / choice.errors[PLAIN].value:.2f} of plain's"
        )
    lines = [f"For {choice.family}, use replay {choice.replay}. Error: {told}. {_reason(choice, config)}"]
    if choice.replay == LEARNED and not costs.is_calibrated:
        # of the images that are drawn, only those of the training part are learned from
        n_drawn = min(-(-config.calibration_images * costs.n_images // costs.n_train), costs.n_images)
        lines += [f"  It is learned from exact views of a few images, once: {costs.of_views(n_drawn)}."]
        lines += [f"    {_embed(config, n_drawn)}"]
    if choice.augmentation:
        lines.append(f"    {_train(config, choice.augmentation, '--replay', choice.replay)}")
    return (*lines, *_views(choice, config, costs))


def _reason(choice: Choice, config: FidelityConfig) -> str:
    if choice.against is not None:
        return f"Against corrected replay, the default, the error changes by {_told(choice.against)}, image by image."
    if LEARNED not in choice.errors:
        return f"Learned replay was not measured: calibration_images is {config.calibration_images}."
    if choice.errors[LEARNED] == choice.errors[CORRECTED]:
        return "Nothing is turned here, so learned replay is the same as corrected."
    return "Learned replay is not clearly better on images that it has not seen."


def _views(choice: Choice, config: FidelityConfig, costs: Costs) -> tuple[str, ...]:
    if not choice.views.value:
        return ("  Exact views would change nothing: nothing is turned here.",)
    if not choice.views_are_better:
        return (f"  Exact views do not pay here: with them the error changes by {_told(choice.views)}.",)
    exactly = "leave no error, by definition," if choice.family == TURNS else f"change it by {_told(choice.views)}"
    n_missing = costs.n_images - costs.n_exact
    if n_missing:
        lines = [f"  Exact views {exactly} and cost once {costs.of_views(n_missing)}.", f"    {_embed(config, None)}"]
    else:
        lines = [f"  Exact views {exactly} and are all in the store."]
    if choice.augmentation:
        lines += [f"    {_train(config, choice.augmentation, '--views', 'd4')}"]
    return tuple(lines)


def _told(difference: Interval) -> str:
    return f"{signed(difference.value)} ({bounds(difference, write=signed)})"


def _embed(config: FidelityConfig, n_drawn: int | None) -> str:
    drawn = () if n_drawn is None else ("--view-images", str(n_drawn))
    return _command("embed", config, ("weights", "precision", "format", "cache"), ("--views", "d4", *drawn))


def _train(config: FidelityConfig, augmentation: str, *options: str) -> str:
    named = ("weights", "precision", "format", "split", "fold", "seed", "cache")
    return _command("train", config, named, ("--augmentation", augmentation, *options))


def _command(name: str, config: FidelityConfig, named: Sequence[str], options: Sequence[str]) -> str:
    """A command on the same data and embeddings; of the named fields those that are not the defaults."""
    usual = FidelityConfig(dataset=config.dataset)
    given = [(field, getattr(config, field)) for field in named if getattr(config, field) != getattr(usual, field)]
    same = [text for field, value in given for text in (f"--{field}", str(value))]
    return shlex.join(["nucseg", name, "--dataset", config.dataset, "--encoder", config.encoder, *same, *options])
