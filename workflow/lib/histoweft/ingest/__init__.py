"""Readers of every platform, checks at load, the H&E pyramid."""
