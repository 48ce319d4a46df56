"""Cell cycle, signatures, rare, transitional and persister cells."""
