"""Keras layers of the methods, one public layer per file, in `keras.ops` only."""
