"""Training of a small encoder to reproduce the embeddings of a large one."""
