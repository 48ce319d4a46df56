"""Assembled samples, notebooks and pages."""
