"""Model families, one file each; `base.py` is the contract."""
