"""How far replayed embeddings are from the embeddings of transformed images."""
