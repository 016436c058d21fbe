"""Scores, curves and the report."""
