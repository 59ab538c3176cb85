"""Views by name."""

from nucseg.views.base import View
from nucseg.views.orientation import MOVES, Orientation
from nucseg.views.recipe import load_recipe, recipe_names
from nucseg.views.variant import RecipeVariant

IDENTITY = "identity"
"""Name of the view that is the unchanged image."""

_D4 = "d4"


def view_names() -> tuple[str, ...]:
    """Names accepted by `views_named`, which also takes the path of a recipe."""
    return (IDENTITY, _D4, *recipe_names())


def views_named(text: str) -> tuple[View, ...]:
    """Return the views that a name stands for, without the unchanged image.

    Args:
        text: `identity`: none; `d4`: the seven other orientations; the name of a built-in view recipe, or the
            path of your own: its variants.

    Raises:
        ConfigError: there is no such recipe, or it is not valid.
    """
    if text == IDENTITY:
        return ()
    if text == _D4:
        return tuple(Orientation(element) for element in range(1, len(MOVES) + 1))
    recipe = load_recipe(text)
    return tuple(RecipeVariant(recipe, number) for number in range(1, recipe.variants + 1))


D4_VIEWS = tuple(view.name for view in views_named(_D4))
"""Names of the views of the seven other orientations, in the order of `nucseg.replay.d4.ELEMENTS`."""
