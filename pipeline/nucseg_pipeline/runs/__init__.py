"""The folder of a training run: what it was made from, its checkpoints and its history."""
