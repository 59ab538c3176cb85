"""Stage one: images in, a store of embeddings out."""
