"""Fixtures of the tests that need no database."""

from tests.cli import api

__all__ = ["api"]
