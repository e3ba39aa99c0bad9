"""Compile reports: what a configuration takes of hardware that is not there."""
