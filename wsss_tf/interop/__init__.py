"""Files of other frameworks: their containers, and what their tensors are called here."""
