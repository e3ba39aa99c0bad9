"""Compile reports: memory, FLOPs and traffic of a training step on hardware that is not present."""
