"""eU-Net3+: U-Net3+ (Huang et al. 2020) with gated linear units (paper A, section 2.1)."""

from typing import ClassVar

from nucseg.models.unet3plus import UNet3Plus


class EUNet3Plus(UNet3Plus):
    """U-Net3+ whose activation gates: with fusion none the papers' own baseline, with a fusion their guided network.

    See `SegmentationModel` for the shapes.
    """

    source: ClassVar[str] = "Swain et al., MICCAI 2024 (paper A), on Huang et al. 2020"
    own_activation: ClassVar[str] = "glu"
