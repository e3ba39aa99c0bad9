"""Monitoring of a run: metrics, their writers, timing and FLOPs."""
