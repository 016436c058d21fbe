"""Several runs in a row, from image labels to a network that is exported."""
