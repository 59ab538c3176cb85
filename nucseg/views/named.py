"""The views that a name stands for."""

from nucseg.views.orientation import MOVES, Orientation
from nucseg.views.photometric import PhotometricVariant
from nucseg.views.recipe import load_recipe, recipe_names
from nucseg.views.view import View


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
