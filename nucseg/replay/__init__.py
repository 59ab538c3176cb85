"""One geometry for image, masks and embedding, so that a cached embedding serves augmented training."""

from nucseg.replay import d4
from nucseg.replay.position import position_pattern, replay, replay_batch

__all__ = ["d4", "position_pattern", "replay", "replay_batch"]
