"""The story in a database, and who looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import override_settings

from tests.house import Story


@pytest.fixture
def sqlite(sqlite_url: str, swap_database) -> Iterator[str]:
    with swap_database(sqlite_url):
        yield sqlite_url


@pytest.fixture
def told(tmp_path: Path, sqlite: str) -> Iterator[Story]:
    """The story, on SQLite."""
    yield from tell(tmp_path)


@pytest.fixture
def told_on_both(tmp_path: Path, any_database: str) -> Iterator[Story]:
    """The story, on SQLite and on PostgreSQL."""
    yield from tell(tmp_path)


def tell(place: Path) -> Iterator[Story]:
    story = Story(place)
    settings = story.tell_of_the_signed()
    story.tell()
    with override_settings(**settings):
        yield story
