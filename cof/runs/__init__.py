"""Runs: a benchmark through the pipeline, the folder it is written to, and its statistics."""
