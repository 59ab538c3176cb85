"""Move image, masks and embedding by one geometric transform, so that a cached embedding serves augmented training."""

from nucseg.replay import d4
from nucseg.replay.channel_mixing import fit_mixing
from nucseg.replay.embedding import Replay
from nucseg.replay.motion import Motions
from nucseg.replay.position_pattern import position_pattern
from nucseg.replay.transforms import Geometry, geometry_names

__all__ = ["Geometry", "Motions", "Replay", "d4", "fit_mixing", "geometry_names", "position_pattern"]
