"""The graph of nearest neighbours in expression: building, clustering and drawing it."""

EXACT_CELLS = 80_000
"""Up to so many cells all distances are computed: no slower than approximating them, and exact."""
