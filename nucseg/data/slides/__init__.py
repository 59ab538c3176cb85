"""Images of any size, including whole slides, read region by region at any scale."""

from nucseg.data.slides.factory import SLIDE_SUFFIXES, open_slide
from nucseg.data.slides.slide import ArraySlide, Slide

__all__ = ["SLIDE_SUFFIXES", "ArraySlide", "Slide", "open_slide"]
