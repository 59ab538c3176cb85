"""A small encoder that imitates a SAM-family one: shipped with the package, or made by `nucseg distill`.

It reads the prepared image of 256 px and returns an embedding (256, 64, 64) in its teacher's embedding space.
"""

from nucseg.encoders.student.sizes import SIZES, StudentShape, shipped_student

__all__ = ["SIZES", "StudentShape", "shipped_student"]
