"""The text decoder shared by all families: attention, layers, KV cache, log-probs, all pure."""
