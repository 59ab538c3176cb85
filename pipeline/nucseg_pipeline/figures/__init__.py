"""The figures of the papers, from runs and embeddings."""
