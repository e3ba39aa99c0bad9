"""Experiments: what the library is worth, measured; not part of the package."""
