"""The learner: mini-batches, log-probs, loss, optimizer, checkpoints and export."""
