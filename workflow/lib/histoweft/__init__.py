"""Histoweft: histology, expression and geometry of a tissue woven into one reproducible study."""

__version__ = "0.1.0"
