"""Towers that turn pixels and sound into rows of the decoder's embeddings."""
