"""One geometry for image, masks and embedding, so that a cached embedding serves augmented training."""

from nucseg.replay import d4
from nucseg.replay.embedding import Replay
from nucseg.replay.geometry import Geometry, geometry_names
from nucseg.replay.mixing import fit_mixing
from nucseg.replay.motion import Motions
from nucseg.replay.position import position_pattern

__all__ = ["Geometry", "Motions", "Replay", "d4", "fit_mixing", "geometry_names", "position_pattern"]
