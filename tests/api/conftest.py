"""An in-process API on a database and a directory pool of its own, for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.callers import Api


@pytest.fixture
def api_place(tmp_path: Path, settings) -> Path:
    settings.COPPICE_POOL = f"dir:{tmp_path / 'pool'}"
    settings.COPPICE_STATE_DIR = tmp_path / "state"
    settings.COPPICE_TRUSTED_KEYS = tmp_path / "keys"
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    settings.COPPICE_NODE = "test"
    return tmp_path


@pytest.fixture
def api(
    api_place: Path,
    sqlite_url: str,
    swap_database: Callable[[str], AbstractContextManager[None]],
) -> Iterator[Api]:
    """On SQLite: for what has nothing to do with the database."""
    with swap_database(sqlite_url):
        yield Api(api_place)


@pytest.fixture
def any_api(api_place: Path, any_database: str) -> Api:
    """On SQLite and on PostgreSQL."""
    return Api(api_place)
