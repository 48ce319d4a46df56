"""Spatial graphs, variable genes, neighbourhoods and communication between cells."""
