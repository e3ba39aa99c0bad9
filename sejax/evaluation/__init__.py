"""Measuring a model on problems with known answers; nothing here is used in training."""
