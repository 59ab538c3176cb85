"""What may happen to the square while a network learns: geometric transforms, drawn from seed, epoch and id.

A recipe is TOML, transforms one after the other, each with the names and parameters of albumentations:

    [[transform]]
    name = "D4"

    [[transform]]
    p = 0.5
    one_of = [{ name = "Affine", rotate = [-15, 15] }, { name = "ElasticTransform", alpha = 60, sigma = 8 }]

`p` is the probability, 1 where it is left out; within one_of, its share. `all_of` is a sequence with a probability of
its own.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import torch
import xxhash

from nucseg.albumentations import load_albumentations
from nucseg.errors import ConfigError, known
from nucseg.replay import d4
from nucseg.replay.coordinate_maps import identity_map
from nucseg.replay.motion import Motions
from nucseg.toml import parse_toml, read_toml

NONE, D4 = "none", "d4"
"""Augmentations that need no recipe: nothing at all, and one of the eight symmetries of the square."""

TRANSFORMS = (
    "Affine", "CropAndPad", "D4", "ElasticTransform", "GridDistortion", "HorizontalFlip", "OpticalDistortion",
    "Perspective", "RandomResizedCrop", "RandomRotate90", "Rotate", "ThinPlateSpline", "Transpose", "VerticalFlip",
)  # fmt: skip
"""The transforms of albumentations that only move pixels, and can be told where each came from."""

OURS = {
    "interpolation": 1, "mask_interpolation": 0, "border_mode": 0, "fill": 0, "fill_mask": 0, "keep_size": True,
    "fit_output": False, "crop_border": False,
}  # fmt: skip
"""Parameters that a recipe cannot set: every pixel is moved linearly, and what came from outside is ignored."""

MOST = {"num_steps": 1024, "num_control_points": 16, "sigma": 256}
"""Of what grows without bound with a parameter, how much there may be."""

GROUPS = ("one_of", "all_of")

PHOTOMETRIC = re.compile(
    "photometric|colou?r|jitter|gamma|clahe|bright|contrast|hue|saturat|hsv|hed|stain|intensity|blur|nois"
    "|gray|grey|invert|solari|poster|equali|tone|sharp|compress|fog|rain|snow|shadow",
    re.IGNORECASE,
)

WHY_NO_COLOURS = (
    "changes colours, and an image with changed colours has another embedding than the cached one: image and guidance "
    "would disagree. Cache variants of the images instead (`nucseg embed --views`)."
)


@dataclass(frozen=True)
class Geometry:
    """A geometric augmentation. `text` says all of it: none, d4, or the transforms of a recipe as JSON."""

    text: str

    @classmethod
    def named(cls, name: str) -> Geometry:
        """The augmentation of that name, in that file, or of that `text`.

        Raises:
            ConfigError: there is none, or something in it is no transform that can be replayed on an embedding.
        """
        if name in (NONE, D4):
            return cls(name)
        written = is_written_out(name)
        steps = _inline(name) if written else _transforms(_read(name), name)
        for step in steps:
            _check(step, "the augmentation" if written else name)
        for leaf in _leaves(steps):  # each is drawn once: albumentations looks at most parameters only then
            _described([{**leaf, "p": 1.0}]).map_of(0, 0, "")
        return _described(steps)

    def motions(self, seed: int, epoch: int, ids: Sequence[str], *, side: int) -> Motions:
        """The motion of each sample in an epoch: a function of seed, epoch and id, so there is no random state to save.

        Args:
            seed: of the run.
            epoch: counted from 0.
            ids: of the samples of a batch.
            side: of the prepared images, in pixels.
        """
        if self.text == NONE:
            return Motions.of_elements([0] * len(ids))
        if self.text == D4:
            return Motions.of_elements([d4.draw(seed, epoch, one) for one in ids])
        return Motions.of_maps(torch.stack([self.map_of(seed, epoch, one, side=side) for one in ids]))

    def map_of(self, seed: int, epoch: int, sample_id: str, *, side: int = 256) -> torch.Tensor:
        """The coordinate map (side, side, 3) of one sample in an epoch, see `nucseg.replay.coordinate_maps`.

        Raises:
            ConfigError: a transform does not take its parameters, or leaves another size.
        """
        drawn = xxhash.xxh3_64_intdigest(f"{seed}/{epoch}/{sample_id}".encode())
        try:
            compose = self._compose(side)
            compose.set_random_seed(drawn % 2**32)
            moved = compose(image=identity_map(side).numpy())["image"]
        except _unfit() as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"The augmentation {self.text} cannot be drawn: {reason}. Mend the recipe.") from None
        if moved.shape != (side, side, 3):
            raise ConfigError(
                f"The augmentation {self.text} makes {moved.shape[1]} x {moved.shape[0]} pixels of {side} x {side}. "
                "Take transforms that keep the size."
            )
        return torch.from_numpy(moved.copy())

    def _compose(self, side: int) -> Any:
        if side not in self._composed:
            library = load_albumentations()
            steps = json.loads(self.text)
            self._composed[side] = library.Compose([_built(step, side) for step in steps])
        return self._composed[side]

    @cached_property
    def _composed(self) -> dict[int, Any]:
        return {}


def is_written_out(text: str) -> bool:
    """Whether a text is the transforms themselves, and not the name of a file: that may begin with a bracket too."""
    return text.startswith("[") and not os.path.isfile(text)  # noqa: PTH113 - Path raises where a name is too long


def geometry_names() -> tuple[str, ...]:
    """The augmentations that come with the package."""
    folder = resources.files("nucseg.replay") / "recipes"
    return (NONE, D4, *sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def _read(name: str) -> bytes:
    if name in geometry_names():
        return (resources.files("nucseg.replay") / "recipes" / f"{name}.toml").read_bytes()
    try:
        return read_toml(name)
    except FileNotFoundError:
        known = ", ".join(geometry_names())
        if PHOTOMETRIC.search(name):
            raise ConfigError(f"augmentation {name!r} {WHY_NO_COLOURS} Geometric are {known}.") from None
        raise ConfigError(f"augmentation must be one of {known}, or a file with transforms, got {name!r}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The augmentation {name!r} cannot be read: {error}. Name another file.") from None


def _transforms(content: bytes, name: str) -> list[Any]:
    tables = parse_toml(content, f"The augmentation {name}")
    if set(tables) != {"transform"} or not isinstance(tables["transform"], list):
        found = ", ".join(tables) or "nothing"
        raise ConfigError(f"The augmentation {name} must be a list of [[transform]], got {found}.")
    return list(tables["transform"])


def _inline(text: str) -> list[Any]:
    try:
        steps = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The augmentation {text!r} is no file, and not JSON: {error}.") from None
    return list(steps)


def _described(steps: list[Any]) -> Geometry:
    return Geometry(json.dumps(steps, sort_keys=True))


def _leaves(steps: list[Any]) -> list[dict[str, Any]]:
    """Every single transform of a list, those within groups too."""
    inner = [_leaves(step[group]) if group in step else [] for step in steps for group in GROUPS]
    return [step for step in steps if "name" in step] + [leaf for leaves in inner for leaf in leaves]


def _unfit() -> tuple[type[Exception], ...]:
    """What albumentations and OpenCV raise where a transform cannot do what it is told."""
    import cv2

    return (ValueError, TypeError, KeyError, IndexError, ArithmeticError, cv2.error)


def _check(step: object, where: str) -> None:
    """Raise ConfigError unless a step is one transform, or a group of them, that can be replayed."""
    kinds = [kind for kind in ("name", *GROUPS) if isinstance(step, dict) and kind in step]
    if not isinstance(step, dict) or len(kinds) != 1:
        raise ConfigError(f"Every transform in {where} has one of name, one_of, all_of; got {step!r}.")
    _check_probability(step.get("p", 1.0), where)
    if kinds == ["name"]:
        _check_transform(step, where)
        return
    members = step[kinds[0]]
    if set(step) - {kinds[0], "p"} or not isinstance(members, list) or not members:
        raise ConfigError(f"{kinds[0]} in {where} holds a list of transforms, and beside it only p; got {step!r}.")
    for member in members:
        _check(member, where)
    if kinds == ["one_of"] and not sum(member.get("p", 1.0) for member in members):
        raise ConfigError(f"one_of in {where} chooses by the p of its transforms, and all are 0; got {step!r}.")


def _check_probability(p: object, where: str) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ConfigError(f"p in {where} must be between 0 and 1, got {p!r}.")


def _check_transform(step: Mapping[str, Any], where: str) -> None:
    name = step["name"]
    if name not in TRANSFORMS:
        raise ConfigError(f"{name!r} in {where} {_why_not(str(name))} Take {', '.join(TRANSFORMS)}.")
    for parameter, value in step.items():
        if not _is_plain(value):
            raise ConfigError(
                f"{parameter} of {name} in {where} must be made of finite numbers, texts, lists, got {value!r}."
            )
    _check_sizes(step, where)
    for parameter in set(step) - {"name", "p"}:
        if parameter in OURS or parameter == "size":
            raise ConfigError(
                f"{parameter} of {name} in {where} cannot be set: the size stays, every pixel is moved linearly, and "
                "what came from outside the image is ignored. Leave it out."
            )
        valid = [one for one in _parameters(name) if one not in OURS and one != "size"]
        if parameter not in valid:
            raise ConfigError(f"{name} in {where} has no parameter {parameter!r}. {known(parameter, valid)}")


def _check_sizes(step: Mapping[str, Any], where: str) -> None:
    for parameter, most in MOST.items():
        if _largest(step.get(parameter, 0)) > most:
            raise ConfigError(
                f"{parameter} of {step['name']} in {where} must be at most {most}, got {step[parameter]!r}: more would "
                "take minutes an image."
            )


def _largest(value: object) -> float:
    """The largest number in a parameter; texts are for the library to refuse."""
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _why_not(name: str) -> str:
    library = load_albumentations()
    kind = getattr(library, name, None)
    if not inspect.isclass(kind):
        return "is no transform of albumentations."
    if issubclass(kind, library.ImageOnlyTransform):
        return WHY_NO_COLOURS
    return "does not only move pixels in the square, so it cannot be replayed on an embedding."


def _built(step: Mapping[str, Any], side: int) -> Any:
    library, p = load_albumentations(), float(step.get("p", 1.0))
    for kind, group in (("one_of", library.OneOf), ("all_of", library.Sequential)):
        if kind in step:
            return group([_built(member, side) for member in step[kind]], p=p)
    name = step["name"]
    fixed = {**OURS, "size": (side, side)}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in step.items() if key != "name"}
    accepted = {key: value for key, value in fixed.items() if key in _parameters(name)}
    return getattr(library, name)(**{**given, "p": p}, **accepted)


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(load_albumentations(), name).__init__).parameters)[1:]
