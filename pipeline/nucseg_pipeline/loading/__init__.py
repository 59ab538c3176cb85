"""Rows of a store as batches of tensors: dataset, order, prefetch and preload."""
