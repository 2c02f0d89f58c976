"""Model families, one file each; `base.py` is the contract.

A family is a module with a frozen dataclass `Config` and

    def load(config) -> Model
    def identify(config) -> dict[str, str]    # weights, dtype, device that `load` would give
"""
