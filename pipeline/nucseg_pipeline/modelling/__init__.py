"""Build the network of a run, run it, and choose its device."""
