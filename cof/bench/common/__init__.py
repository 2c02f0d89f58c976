"""What benchmarks share: files, answers put to questions, options, yes and no, the hub."""
