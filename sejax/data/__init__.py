"""Data: sources of records, images, and one deterministic pipeline of batches."""
