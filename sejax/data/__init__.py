"""Data: sources of records, image decoding, and a deterministic pipeline of batches."""
