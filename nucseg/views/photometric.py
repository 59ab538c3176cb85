"""Variants of an image: a recipe's crop and transforms in order, with parameters drawn for each image."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nucseg.photometric.recipe import apply_steps
from nucseg.views.base import Image, View
from nucseg.views.crop import CROP
from nucseg.views.recipe import ViewRecipe


@dataclass(frozen=True)
class PhotometricVariant(View):
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
        """Seed, number, crop, every transform with all its parameters, and their common probability if it is below 1.

        How many variants there are does not matter.
        """
        steps = {
            f"transform {i}": f"{step.transform.label}, p {step.p}, {json.dumps(step.parameters, sort_keys=True)}"
            for i, step in enumerate(self.recipe.steps, 1)
        }
        crop = {} if self.recipe.crop is None else {CROP: self.recipe.crop.described}
        p = {} if self.recipe.p == 1 else {"p": str(self.recipe.p)}
        return {"seed": str(self.recipe.seed), "variant": str(self.number), **p, **crop, **steps}

    def apply(self, image: Image, sample_id: str) -> Image:
        """Return (H, W, 3). Draws depend only on seed, variant and id, not on the process or the order."""
        # Python guarantees the same random() for a seed in every version; numpy does not
        draws = random.Random(f"{self.recipe.seed}/{self.number}/{sample_id}")  # noqa: S311 - no secret
        if self.recipe.crop is not None:
            image = self.recipe.crop.draw(draws)(image)
        return apply_steps(self.recipe.steps, image, draws, p=self.recipe.p)
