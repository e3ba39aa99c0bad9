"""Compile reports: memory, FLOPs and traffic of a configuration on hardware that is not at hand."""
