"""Images of any size, including whole slides, read region by region at any scale."""

from nucseg.data.slides.factory import SLIDE_SUFFIXES, open_slide, scene_names
from nucseg.data.slides.resolution import Mpp, square_side
from nucseg.data.slides.scenes import choose_scene
from nucseg.data.slides.slide import ArraySlide, Slide

__all__ = ["SLIDE_SUFFIXES", "ArraySlide", "Mpp", "Slide", "choose_scene", "open_slide", "scene_names", "square_side"]
