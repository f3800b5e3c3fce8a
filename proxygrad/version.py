"""Versions, readable without importing anything heavy."""

__version__ = "0.1.0"

#: Part of every result's id. Raised whenever the same request would give another picture.
ENGINE_VERSION = "4"
