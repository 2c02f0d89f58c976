"""Configs: YAML and overrides -> checked dataclasses; where plug-ins are found."""
