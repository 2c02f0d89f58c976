"""Errors that a user can cause and mend: one line that says what was wrong, the value, the fix."""

from __future__ import annotations


class CofError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""


class ConfigError(CofError):
    """A config names an unknown key, has a wrong type or an impossible value."""


class DataError(CofError):
    """A benchmark folder, image, or answer file is not what it should be; names the file."""


class ModelError(CofError):
    """A checkpoint cannot be found, recognised or loaded."""


class AnswerError(CofError):
    """A question cannot be answered: it is empty or too long, or a pass computed NaN or inf."""


class RunError(CofError):
    """A run folder belongs to another config, is incomplete, or had questions that failed."""
