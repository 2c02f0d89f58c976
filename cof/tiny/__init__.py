"""cof-tiny: procedural scenes, questions, tokenizer and training of the embedded model."""
