"""eU-Net3+: U-Net3+ (Huang et al. 2020) with gated linear units (paper A, section 2.1)."""

from typing import ClassVar

from nucseg.models.unet3plus import UNet3Plus


class EUNet3Plus(UNet3Plus):
    """U-Net3+ with gated activations: the papers' baseline with fusion none, their guided network with a fusion.

    See `SegmentationModel` for the shapes.
    """

    source: ClassVar[str] = "Swain et al., MICCAI 2024 (paper A), on Huang et al. 2020"
    own_activation: ClassVar[str] = "glu"
