"""The views that a name stands for."""

from nucseg.views.base import View
from nucseg.views.orientation import MOVES, Orientation
from nucseg.views.photometric import PhotometricVariant
from nucseg.views.recipe import load_recipe, recipe_names


def view_names() -> tuple[str, ...]:
    """What `views_named` knows besides the file of a recipe."""
    return ("identity", "d4", *recipe_names())


def views_named(text: str) -> tuple[View, ...]:
    """The views beside the image as it is.

    Args:
        text: `identity`, none; `d4`, the seven other orientations; the name of a photometric recipe of the package, or
            the path of one's own, its variants.

    Raises:
        ConfigError: there is no such recipe, or it asks for what cannot be.
    """
    if text == "identity":
        return ()
    if text == "d4":
        return tuple(Orientation(element) for element in range(1, len(MOVES) + 1))
    recipe = load_recipe(text)
    return tuple(PhotometricVariant(recipe, number) for number in range(1, recipe.variants + 1))


D4_VIEWS = tuple(view.name for view in views_named("d4"))
"""The exact views of the other seven orientations, in the order of `nucseg.replay.d4.ELEMENTS`."""


IDENTITY = "identity"
"""The view that is the image as it lies in the data set."""
