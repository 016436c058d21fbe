"""Loss functions, one file per method; each term is [batch], and the caller takes the mean."""
