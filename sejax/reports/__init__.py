"""HTML pages about data sets and runs."""
