"""The network of a run: building it, running it, and the device it runs on."""
