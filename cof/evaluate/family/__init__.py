"""Does a family's adapter compute what transformers does? The checks of `cof doctor --family`."""
