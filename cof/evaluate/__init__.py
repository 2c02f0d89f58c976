"""A benchmark through the pipeline: batches, memory, sweeps, controls, probes."""
