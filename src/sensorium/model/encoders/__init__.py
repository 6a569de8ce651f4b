"""Towers that turn pixels (later: sound) into rows of the decoder's embeddings."""
