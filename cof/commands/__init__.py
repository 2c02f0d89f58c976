"""Subcommands of `cof`, one file each; imported only when called."""
