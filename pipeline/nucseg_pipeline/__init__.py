"""The stages, in order, and the command line."""
