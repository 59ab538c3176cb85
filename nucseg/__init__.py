"""The science of nucseg: arrays and tensors in, arrays and tensors out; no files of its own making."""
