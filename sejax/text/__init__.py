"""Strings, on the host only: prompts, answers and verdicts."""
