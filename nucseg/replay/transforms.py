"""Geometric augmentation of the square training images, drawn from seed, epoch and image id.

A recipe is TOML: a sequence of transforms with the names and parameters of albumentations:

    [[transform]]
    name = "D4"

    [[transform]]
    p = 0.5
    one_of = [{ name = "Affine", rotate = [-15, 15] }, { name = "ElasticTransform", alpha = 60, sigma = 8 }]

`p` is the probability, by default 1; within one_of, the relative weight. `all_of` is a sequence with a probability of
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
"""Augmentations without a recipe: no motion, and one of the eight symmetries of the square."""

TRANSFORMS = (
    "Affine", "CropAndPad", "D4", "ElasticTransform", "GridDistortion", "HorizontalFlip", "OpticalDistortion",
    "Perspective", "RandomResizedCrop", "RandomRotate90", "Rotate", "ThinPlateSpline", "Transpose", "VerticalFlip",
)  # fmt: skip
"""The transforms of albumentations that only move pixels, so that they can be replayed on an embedding."""

FIXED_PARAMETERS = {
    "interpolation": 1, "mask_interpolation": 0, "border_mode": 0, "fill": 0, "fill_mask": 0, "keep_size": True,
    "fit_output": False, "crop_border": False,
}  # fmt: skip
"""Parameters that a recipe cannot set: pixels are interpolated linearly, and those from outside are ignored."""

LARGEST_VALUES = {"num_steps": 1024, "num_control_points": 16, "sigma": 256}
"""Upper limits of the parameters on which time or memory depend without bound."""

GROUPS = ("one_of", "all_of")

PHOTOMETRIC = re.compile(
    "photometric|colou?r|jitter|gamma|clahe|bright|contrast|hue|saturat|hsv|hed|stain|intensity|blur|nois"
    "|gray|grey|invert|solari|poster|equali|tone|sharp|compress|fog|rain|snow|shadow",
    re.IGNORECASE,
)

WHY_NO_COLOURS = (
    "changes colours, but an augmentation only moves pixels, so that it can be replayed on the embedding. Change "
    "colours with --photometric, which keeps the cached embedding, or cache views in other colours (`nucseg embed "
    "--views`)."
)


@dataclass(frozen=True)
class Geometry:
    """A geometric augmentation."""

    text: str
    """Its complete description: none, d4, or the transforms of a recipe as JSON."""

    @classmethod
    def named(cls, name: str) -> Geometry:
        """The augmentation of this name, in this file, or with this `text`.

        Raises:
            ConfigError: it does not exist, or contains a transform that cannot be replayed on an embedding.
        """
        if name in (NONE, D4):
            return cls(name)
        inline = is_written_out(name)
        steps = _parse_json(name) if inline else _parse_recipe(_read(name), name)
        for step in steps:
            _check(step, "the augmentation" if inline else name)
        for leaf in _leaves(steps):  # draw each once: albumentations checks most parameters only then
            _geometry([{**leaf, "p": 1.0}]).map_of(0, 0, "")
        return _geometry(steps)

    def motions(self, seed: int, epoch: int, ids: Sequence[str], *, side: int) -> Motions:
        """The motion of each sample in an epoch; a function of the arguments, so there is no random state to save.

        Args:
            seed: of the run.
            epoch: counted from 0.
            ids: of the samples of a batch.
            side: of the prepared images, in pixels.
        """
        if self.text == NONE:
            return Motions.of_elements([0] * len(ids))
        if self.text == D4:
            return Motions.of_elements([d4.draw(seed, epoch, image_id) for image_id in ids])
        return Motions.of_maps(torch.stack([self.map_of(seed, epoch, image_id, side=side) for image_id in ids]))

    def map_of(self, seed: int, epoch: int, sample_id: str, *, side: int = 256) -> torch.Tensor:
        """The coordinate map (side, side, 3) of one sample in an epoch, see `nucseg.replay.coordinate_maps`.

        Raises:
            ConfigError: a transform rejects its parameters, or changes the size.
        """
        drawn = xxhash.xxh3_64_intdigest(f"{seed}/{epoch}/{sample_id}".encode())
        try:
            compose = self._compose(side)
            compose.set_random_seed(drawn % 2**32)
            moved = compose(image=identity_map(side).numpy())["image"]
        except _drawing_errors() as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"The augmentation {self.text} cannot be drawn: {reason}. Use other parameters."
            ) from None
        if moved.shape != (side, side, 3):
            raise ConfigError(
                f"The augmentation {self.text} changes {side} x {side} to {moved.shape[1]} x {moved.shape[0]} pixels. "
                "Use transforms that keep the size."
            )
        return torch.from_numpy(moved.copy())

    def _compose(self, side: int) -> Any:
        if side not in self._composed:
            library = load_albumentations()
            steps = json.loads(self.text)
            self._composed[side] = library.Compose([_build(step, side) for step in steps])
        return self._composed[side]

    @cached_property
    def _composed(self) -> dict[int, Any]:
        return {}


def is_written_out(text: str) -> bool:
    """Whether a text is the transforms themselves, not a file name; file names may begin with a bracket too."""
    return text.startswith("[") and not os.path.isfile(text)  # noqa: PTH113 - Path raises if a name is too long


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
        reason = WHY_NO_COLOURS if PHOTOMETRIC.search(name) else "is no known name, and there is no such file."
        raise ConfigError(f"The augmentation {name!r} {reason} {known(name, geometry_names())}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The augmentation {name!r} cannot be read: {error}. Give another file.") from None


def _parse_recipe(content: bytes, name: str) -> list[Any]:
    tables = parse_toml(content, f"The augmentation {name}")
    if set(tables) != {"transform"} or not isinstance(tables["transform"], list):
        found = ", ".join(tables) or "nothing"
        raise ConfigError(f"The augmentation {name} must be a list of [[transform]], got {found}.")
    return list(tables["transform"])


def _parse_json(text: str) -> list[Any]:
    try:
        steps = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The augmentation {text!r} is neither a file nor JSON: {error}. Give a file.") from None
    return list(steps)


def _geometry(steps: list[Any]) -> Geometry:
    return Geometry(json.dumps(steps, sort_keys=True))


def _leaves(steps: list[Any]) -> list[dict[str, Any]]:
    """Every single transform of a list, including those within groups."""
    inner = [_leaves(step[group]) if group in step else [] for step in steps for group in GROUPS]
    return [step for step in steps if "name" in step] + [leaf for leaves in inner for leaf in leaves]


def _drawing_errors() -> tuple[type[Exception], ...]:
    """What albumentations and OpenCV raise if a transform cannot use its parameters."""
    import cv2

    return (ValueError, TypeError, KeyError, IndexError, ArithmeticError, cv2.error)


def _check(step: object, where: str) -> None:
    """Raise ConfigError unless a step is one transform, or a group of them, that can be replayed."""
    kinds = [kind for kind in ("name", *GROUPS) if isinstance(step, dict) and kind in step]
    if not isinstance(step, dict) or len(kinds) != 1:
        raise ConfigError(f"Every transform in {where} needs one of name, one_of, all_of; got {step!r}.")
    _check_probability(step.get("p", 1.0), where)
    if kinds == ["name"]:
        _check_transform(step, where)
        return
    members = step[kinds[0]]
    if set(step) - {kinds[0], "p"} or not isinstance(members, list) or not members:
        raise ConfigError(f"{kinds[0]} in {where} must be a list of transforms, with only p next to it; got {step!r}.")
    for member in members:
        _check(member, where)
    if kinds == ["one_of"] and not sum(member.get("p", 1.0) for member in members):
        raise ConfigError(f"one_of in {where} needs a transform with p above 0, but all are 0; got {step!r}.")


def _check_probability(p: object, where: str) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ConfigError(f"p in {where} must be between 0 and 1, got {p!r}.")


def _check_transform(step: Mapping[str, Any], where: str) -> None:
    name = step["name"]
    if name not in TRANSFORMS:
        raise ConfigError(f"{name!r} in {where} {_why_not(str(name))} {known(name, TRANSFORMS)}")
    for parameter, value in step.items():
        if not _is_plain(value):
            raise ConfigError(
                f"{parameter} of {name} in {where} must consist of finite numbers, strings, lists, got {value!r}."
            )
    _check_limits(step, where)
    fixed = {*FIXED_PARAMETERS, "size"}
    for parameter in set(step) - {"name", "p"}:
        if parameter in fixed:
            raise ConfigError(
                f"{parameter} of {name} in {where} cannot be set: the size is kept, pixels are interpolated linearly, "
                "and those from outside the image are ignored. Leave it out."
            )
        valid = [accepted for accepted in _parameters(name) if accepted not in fixed]
        if parameter not in valid:
            raise ConfigError(f"{name} in {where} has no parameter {parameter!r}. {known(parameter, valid)}")


def _check_limits(step: Mapping[str, Any], where: str) -> None:
    for parameter, limit in LARGEST_VALUES.items():
        if _largest(step.get(parameter, 0)) > limit:
            raise ConfigError(
                f"{parameter} of {step['name']} in {where} must be at most {limit}, got {step[parameter]!r}: more "
                "would take minutes per image."
            )


def _largest(value: object) -> float:
    """The largest number in a parameter; strings are left for the library to refuse."""
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _why_not(name: str) -> str:
    library = load_albumentations()
    kind = getattr(library, name, None)
    if not inspect.isclass(kind):
        return "is not a transform of albumentations."
    if issubclass(kind, library.ImageOnlyTransform):
        return WHY_NO_COLOURS
    return "does more than move pixels within the square, so it cannot be replayed on an embedding."


def _build(step: Mapping[str, Any], side: int) -> Any:
    library, p = load_albumentations(), float(step.get("p", 1.0))
    for kind, group in (("one_of", library.OneOf), ("all_of", library.Sequential)):
        if kind in step:
            return group([_build(member, side) for member in step[kind]], p=p)
    name = step["name"]
    fixed = {**FIXED_PARAMETERS, "size": (side, side)}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in step.items() if key != "name"}
    accepted = {key: value for key, value in fixed.items() if key in _parameters(name)}
    return getattr(library, name)(**{**given, "p": p}, **accepted)


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(load_albumentations(), name).__init__).parameters)[1:]
