"""One function per figure; each returns a matplotlib Figure and touches no global state."""

from nucseg.figures.curves import Epoch, training_curves
from nucseg.figures.overlay import EXTRA, IGNORED, MISSED, OUTLINE, TRUTH, Panels, overlay, panels
from nucseg.figures.reliability import Calibration, reliability_diagram
from nucseg.figures.violin import violin

__all__ = [
    "EXTRA",
    "IGNORED",
    "MISSED",
    "OUTLINE",
    "TRUTH",
    "Calibration",
    "Epoch",
    "Panels",
    "overlay",
    "panels",
    "reliability_diagram",
    "training_curves",
    "violin",
]
