"""What cof.models.llava_package uses of LLaVA's package, in few lines, with the builder's traps.

It stands in where the package is not installed; the slow tests hold the same against the real one.
"""
