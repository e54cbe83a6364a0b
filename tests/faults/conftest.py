"""A world for each kind of pool and each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connections

from templates_app.datasets.base import DatasetDriver
from templates_app.names import Platform
from templates_app.services import common
from tests.faults import process
from tests.faults.world import World


@pytest.fixture
def world(
    pool: DatasetDriver, any_database: str, settings, pool_state: Path, tmp_path: Path
) -> Iterator[World]:
    with _world(pool, settings, pool_state, tmp_path) as made:
        yield made


@pytest.fixture
def dir_world(
    dir_pool: DatasetDriver,
    sqlite_url: str,
    swap_database,
    settings,
    pool_state: Path,
    tmp_path: Path,
) -> Iterator[World]:
    """Where a kill costs least."""
    with swap_database(sqlite_url), _world(dir_pool, settings, pool_state, tmp_path) as made:
        yield made


@pytest.fixture
def soak_world(
    own_zfs_pool: DatasetDriver,
    postgres_url: str,
    swap_database,
    settings,
    pool_state: Path,
    tmp_path: Path,
) -> Iterator[World]:
    """Where a product is used."""
    with swap_database(postgres_url), _world(own_zfs_pool, settings, pool_state, tmp_path) as made:
        settings.COPPICE_TRUSTED_KEYS = pool_state / "trusted-keys"
        settings.COPPICE_LIMIT_LAYERS_BYTES = 0
        yield made


@contextmanager
def _world(pool: DatasetDriver, settings, state: Path, place: Path) -> Iterator[World]:
    shelf = place / "shelf"
    shelf.mkdir()
    settings.COPPICE_POOL = pool.pool
    settings.COPPICE_STATE_DIR = state
    settings.COPPICE_NODE = "test"
    settings.COPPICE_ENGINE = "native"
    settings.COPPICE_PLATFORM = Platform.parse("linux/amd64")
    settings.COPPICE_IMPORT_ROOTS = (shelf,)
    settings.COPPICE_DNS_NAMESERVER = ""
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    settings.COPPICE_TRUSTED_KEYS = None
    settings.COPPICE_RETAIN_GENERATIONS = 1
    settings.COPPICE_READY_SECONDS = 0
    pool.check()
    with process.orphans_are_ours():
        yield World(common.driver(), state, shelf)
    connections.close_all()
