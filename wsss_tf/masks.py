"""What the values of a mask mean, to every part of the package.

A mask holds classes, 0..K-1, and `IGNORE`. It is not in `wsss_tf.ops`, which imports Keras:
scores are counted without it.
"""

IGNORE = 255  # of pixels whose class is not known; no loss and no score counts them
