"""Soft-prompt tuning of frozen T5-family models in JAX."""

__version__ = '0.1.0'
