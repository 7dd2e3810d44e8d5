"""Weights on disk. Foreign tensor names live in this package and nowhere else."""
