"""Voxel atlases: reading, models that reconstruct expression and place, and their scores."""
