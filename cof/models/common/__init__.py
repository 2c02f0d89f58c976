"""What model families share: finding a checkpoint, decoding, keys and values, failed passes."""
