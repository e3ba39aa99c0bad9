"""Evaluates models on problems with known answers; training never uses these answers."""
