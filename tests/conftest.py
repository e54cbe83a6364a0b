"""Fixtures for all tests."""

from __future__ import annotations

import pytest
from whitenoise.base import StaticFile
from whitenoise.middleware import WhiteNoiseMiddleware

pytest_plugins = [
    "tests.real_programs",
    "tests.databases",
    "tests.pools",
    "tests.registries",
    "tests.liars",
    "tests.servers",
]


@pytest.fixture(scope="session", autouse=True)
def static_files_are_found_once() -> None:
    """Each of Django's test clients makes the middleware anew, and this looks at all 200 files."""
    look = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, StaticFile] = {}

    def add_files_from_finders(middleware: WhiteNoiseMiddleware) -> None:
        if not found:
            look(middleware)
            found.update(middleware.files)
        middleware.files.update(found)

    WhiteNoiseMiddleware.add_files_from_finders = add_files_from_finders
