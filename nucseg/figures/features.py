"""Feature maps side by side, lettered as in a paper, with every cell of their grid visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.figures.nuclei import TRUTH, draw_outlines
from nucseg.figures.pca_colours import Vector
from nucseg.figures.style import INK
from nucseg.metrics.instances import InstanceMap

WIDTH_IN = 4.8
"""Width of the figure: the text width of the LNCS proceedings, so that it is not scaled."""
MAX_COLUMNS = 5
TITLE_IN, GAP_IN = 0.29, 0.05
"""Space for the two lines above a panel, and between panels."""
TITLE_PT, LETTER_EM = 7.0, 0.58
"""Size of the titles, and the approximate width of a letter as a multiple of it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FeaturePanel:
    """A panel: features as colours, or an image to compare them with."""

    title: str
    rgb: NDArray[Any]
    """(H, W, 3), uint8 or floats in [0, 1]."""
    explained: Vector | None = None
    """(3,) share of the variance explained by each colour; None for an image."""
    outlined: InstanceMap | None = None
    """(H, W) nuclei to outline on an image."""

    @property
    def grid(self) -> str:
        """Rows and columns as text."""
        height, width = self.rgb.shape[:2]
        return f"{height} \N{MULTIPLICATION SIGN} {width}" + (" px" if self.explained is None else "")


def feature_panels(panels: Sequence[FeaturePanel]) -> Figure:
    """Draw the panels in rows, lettered (a), (b), ...; above each, its title, grid and explained variance.

    Raises:
        DataError: no panel, or more than there are letters.
    """
    if not 1 <= len(panels) <= len(ascii_lowercase):
        raise DataError(f"A figure must have 1 to {len(ascii_lowercase)} lettered panels, got {len(panels)}.")
    columns = _n_columns(len(panels))
    rows = -(-len(panels) // columns)
    panel_in = (WIDTH_IN - (columns - 1) * GAP_IN) / columns
    tall_in = panel_in * max(panel.rgb.shape[0] / panel.rgb.shape[1] for panel in panels)
    height_in = rows * (tall_in + TITLE_IN) + (rows - 1) * GAP_IN
    figure = Figure(figsize=(WIDTH_IN, height_in))
    titles = [
        f"({letter}) {panel.title}\n{_second_line(panel)}"
        for letter, panel in zip(ascii_lowercase, panels, strict=False)
    ]
    font_pt = _font_pt(titles, panel_in)
    for position, panel in enumerate(panels):
        row, column = divmod(position, columns)
        left, top = column * (panel_in + GAP_IN), height_in - row * (tall_in + TITLE_IN + GAP_IN) - TITLE_IN
        axes = figure.add_axes(
            (left / WIDTH_IN, (top - tall_in) / height_in, panel_in / WIDTH_IN, tall_in / height_in), anchor="N"
        )
        axes.imshow(panel.rgb, interpolation="bilinear" if panel.explained is None else "nearest")
        if panel.outlined is not None:
            draw_outlines(axes, panel.outlined, TRUTH, panel_in=panel_in)
        axes.set_title(titles[position], fontsize=font_pt, color=INK, pad=3, linespacing=1.15)
        axes.set_axis_off()
    return figure


def feature_caption(panels: Sequence[FeaturePanel]) -> str:
    """Write the caption of `feature_panels`: title, grid and the variance explained by each colour."""
    return "; ".join(
        f"({letter}) {panel.title}, {panel.grid}" + _shares(panel)
        for letter, panel in zip(ascii_lowercase, panels, strict=False)
    )


def _n_columns(n_panels: int) -> int:
    """Up to MAX_COLUMNS in one row, else rows of equal length."""
    n_rows = -(-n_panels // MAX_COLUMNS)
    return -(-n_panels // n_rows)


def _font_pt(titles: Sequence[str], panel_in: float) -> float:
    """TITLE_PT, or less if a title would overlap its neighbours."""
    longest = max(len(line) for title in titles for line in title.split("\n"))
    return min(TITLE_PT, 72 * panel_in / (LETTER_EM * longest))


def _second_line(panel: FeaturePanel) -> str:
    return panel.grid if panel.explained is None else f"{panel.grid}, {100 * panel.explained.sum():.0f} %"


def _shares(panel: FeaturePanel) -> str:
    if panel.explained is None:
        return ""
    each = " + ".join(f"{100 * share:.1f}" for share in panel.explained)
    return f": {each} = {100 * panel.explained.sum():.1f} % of the variance"
