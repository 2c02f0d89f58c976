"""The mini benchmarks of the embedded model's world, as `mini` in conftest.py writes them."""

FOLDERS = {
    "mme": "MiniMME",
    "pope": "MiniPOPE",
    "mmbench": "MiniMMBench",
    "vstar": "MiniVStar",
    "refcoco": "grounding",
}
"""Benchmark -> its folder."""
