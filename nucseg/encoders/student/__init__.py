"""A small convolutional encoder that imitates a SAM-family one: shipped with the package, or distilled by its user.

It reads the prepared image of 256 px and returns (256, 64, 64) in the embedding space of its teacher.
"""

from nucseg.encoders.student.sizes import SIZES, StudentShape, shipped_student

__all__ = ["SIZES", "StudentShape", "shipped_student"]
