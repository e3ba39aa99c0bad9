"""Measurements of speed and memory; each prints a table, then one line of JSON."""
