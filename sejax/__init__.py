"""sejax: vision-language models that improve without labels, by judging themselves, in JAX."""
