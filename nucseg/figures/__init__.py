"""One function per figure; each returns a matplotlib Figure and changes no global state."""

from nucseg.figures.curves import Epoch, training_curves
from nucseg.figures.features import FeaturePanel, feature_caption, feature_panels
from nucseg.figures.fidelity import ErrorBars, fidelity_bars
from nucseg.figures.guidance import HARMED, HELPED, GuidanceEffect, guidance_effect
from nucseg.figures.layers import encoder_panels, network_panels
from nucseg.figures.nuclei import EXTRA, IGNORED, MISSED, OUTLINE, TRUTH
from nucseg.figures.overlay import Scene, overlay, overlays
from nucseg.figures.pca_colours import PrincipalColours, principal_colours, without_padding
from nucseg.figures.reliability import reliability_diagram
from nucseg.figures.scatter import image_scatter, marked_strata
from nucseg.figures.vector import outline_path
from nucseg.figures.violin import violin

__all__ = [
    "EXTRA",
    "HARMED",
    "HELPED",
    "IGNORED",
    "MISSED",
    "OUTLINE",
    "TRUTH",
    "Epoch",
    "ErrorBars",
    "FeaturePanel",
    "GuidanceEffect",
    "PrincipalColours",
    "Scene",
    "encoder_panels",
    "feature_caption",
    "feature_panels",
    "fidelity_bars",
    "guidance_effect",
    "image_scatter",
    "marked_strata",
    "network_panels",
    "outline_path",
    "overlay",
    "overlays",
    "principal_colours",
    "reliability_diagram",
    "training_curves",
    "violin",
    "without_padding",
]
