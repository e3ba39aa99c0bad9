"""The learner: log-probs, loss, optimizer, mini-batches, checkpoints."""
