"""The graph of nearest neighbours in expression: building, clustering and drawing it."""
