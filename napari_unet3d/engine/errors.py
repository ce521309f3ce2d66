"""The one exception of the engine: a sentence for the person."""

from __future__ import annotations


class EngineError(Exception):
    """Say to the person what went wrong, with the value received and the remedy."""


class OutOfMemoryError(EngineError):
    """Say that the device has no room for what was asked, and what to make smaller."""


class SaveError(EngineError):
    """Say that a model could not be written, and what to change."""
