"""Variants of an image: the crop, glass and transforms of a recipe, with parameters drawn for each image."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nucseg.photometric.recipe import apply_steps
from nucseg.views.base import Image, View
from nucseg.views.crop import CROP
from nucseg.views.glass import GLASS
from nucseg.views.masks import draws_for
from nucseg.views.recipe import ViewRecipe


@dataclass(frozen=True)
class RecipeVariant(View):
    """One of a recipe's variants."""

    recipe: ViewRecipe
    number: int
    """Counted from 1."""
    has_own_image: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The recipe's name and the variant's number, as in `stain-1`."""
        return f"{self.recipe.name}-{self.number}"

    @property
    def described(self) -> Mapping[str, str]:
        """Seed, number, crop, glass and every transform with all its parameters.

        How many variants there are does not matter, nor does the recipe's common probability.
        """
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
        image = apply_steps(self.recipe.steps, image, draws)
        return image if cover is None else cover(image)  # last, so that transforms leave the colour of the glass
