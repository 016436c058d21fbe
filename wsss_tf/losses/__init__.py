"""Loss functions, one file a method; each term is [batch], the mean is the caller's."""
