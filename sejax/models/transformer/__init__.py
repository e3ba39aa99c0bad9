"""The decoder that the families share: attention, layers, caches, log-probs; pure functions."""
