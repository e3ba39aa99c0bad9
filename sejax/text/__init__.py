"""Text processing on the host: prompts, answers, verdicts, and the exact comparison of answers."""
