"""Variants of an image: a recipe's crop, transforms in order, and glass, with parameters drawn for each image."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nucseg.views.base import Image, View
from nucseg.views.crop import CROP
from nucseg.views.glass import GLASS
from nucseg.views.masks import draws_for
from nucseg.views.recipe import PhotometricRecipe


@dataclass(frozen=True)
class PhotometricVariant(View):
    """One of a recipe's variants."""

    recipe: PhotometricRecipe
    number: int
    """Counted from 1."""
    has_own_image: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The recipe's name and the variant's number, as in `stain-1`."""
        return f"{self.recipe.name}-{self.number}"

    @property
    def described(self) -> Mapping[str, str]:
        """Seed, number, crop, glass and every transform with its parameters, but not how many variants there are."""
        steps = {
            f"transform {i}": f"{step.transform.label}, p {step.p}, {json.dumps(step.parameters, sort_keys=True)}"
            for i, step in enumerate(self.recipe.steps, 1)
        }
        crop = {} if self.recipe.crop is None else {CROP: self.recipe.crop.described}
        glass = {} if self.recipe.glass is None else {GLASS: self.recipe.glass.described}
        return {"seed": str(self.recipe.seed), "variant": str(self.number), **crop, **glass, **steps}

    def apply(self, image: Image, sample_id: str) -> Image:
        """Return (H, W, 3). Draws depend only on seed, variant and id, not on the process or the order."""
        draws = draws_for(self.recipe.seed, self.number, sample_id)
        if self.recipe.crop is not None:
            image = self.recipe.crop.draw(draws)(image)
        cover = None if self.recipe.glass is None else self.recipe.glass.draw(draws)
        for step in self.recipe.steps:
            # always draw, so that the draws of a step do not depend on whether another was applied
            is_applied = draws.random() < step.p
            change = step.transform.draw(draws, step.parameters)
            image = change(image) if is_applied else image
        return image if cover is None else cover(image)  # last, so that transforms leave the colour of the glass
