"""The embedded model: procedural scenes, a small LLaVA trained on them, mini benchmarks."""
