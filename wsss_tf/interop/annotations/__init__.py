"""Annotations of other tools: one reader a format, one record for all, one writer."""
