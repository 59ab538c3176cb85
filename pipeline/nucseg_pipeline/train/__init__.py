"""Stage two: a store in, a run out."""
