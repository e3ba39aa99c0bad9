"""What is watched of a run: metrics, their writers, and where the time goes."""
