"""Keras layers of the methods, one public layer a file, in `keras.ops` only."""
