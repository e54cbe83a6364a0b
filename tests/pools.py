"""Fixtures for pools: a real ZFS on a sparse file, and directories.

The ZFS is the one that this mount namespace has: `make test` and `deploy/private-zfs` bring a
zfs-fuse of their own, so nothing here can reach a pool that somebody uses. Each worker of
pytest-xdist makes one pool, in which each test has a dataset of its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from templates_app.datasets import from_pool
from templates_app.datasets.base import DatasetDriver
from templates_app.datasets.zfs_command import mounting

HOW = "run the tests with `make test`, or `deploy/private-zfs pytest …`"
#: Of zfs and zpool: servers mount at the same time, and zfs-fuse cannot bear it.
_MOUNT = {"clone", "create", "import", "inherit", "mount", "rename", "rollback", "set"}
_numbers = itertools.count(1)
_files: dict[str, Path] = {}


def sh(*argv: str | Path, check: bool = True) -> str:
    """Run a program as an operator would; its output. For tests, not for the product."""
    words = [str(word) for word in argv]
    mounts = words[0] in ("zfs", "zpool") and words[1] in _MOUNT
    with mounting(60) if mounts else nullcontext(()) as held:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=held,
        )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def stubbornly(*argv: str | Path) -> None:
    """Run until it succeeds: after an unmount of FUSE "dataset is busy" is over in a moment."""
    until = time.monotonic() + 30
    while True:
        try:
            sh(*argv)
        except AssertionError as failed:
            if "busy" not in str(failed) or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def make_pool(name: str, place: Path, size: str) -> str:
    """A pool of ``size`` on a sparse file in ``place``, mounted there; its name."""
    try:
        sh("zpool", "list", "-H", "-o", "name")
    except (AssertionError, FileNotFoundError) as failed:
        pytest.fail(f"no ZFS answers here: {HOW}\n{failed}", pytrace=False)
    file, mountpoint = place / f"{name}.disk", place / name
    mountpoint.mkdir()
    sh("truncate", "-s", size, file)
    _files[name] = file
    sh("zpool", "create", "-o", "cachefile=none", "-m", mountpoint, name, file)
    return name


@pytest.fixture(scope="session")
def zpool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The worker's pool."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = make_pool(f"zroot-{worker}", tmp_path_factory.mktemp("zpool"), "4G")
    yield name
    end_pool(name)


def end_pool(name: str) -> None:
    stubbornly("zpool", "destroy", "-f", name)
    _files.pop(name).unlink()  # sparse, but pytest keeps directories of old runs


@pytest.fixture
def zfs_root(zpool: str) -> Iterator[str]:
    """A fresh dataset, ``zroot-WORKER/jails-N``.

    No two have one name: what a test leaves behind is its own failure, and not the next one's.
    """
    root = f"{zpool}/jails-{next(_numbers)}"
    sh("zfs", "create", "--", root)
    yield root
    stubbornly("zfs", "destroy", "-R", "--", root)


@pytest.fixture
def pool_state(tmp_path: Path) -> Path:
    """The state directory of the drivers below."""
    place = tmp_path / "pool-state"
    place.mkdir()
    return place


@pytest.fixture
def zfs_pool(zfs_root: str, pool_state: Path) -> DatasetDriver:
    return from_pool(f"zfs:{zfs_root}", step_seconds=60, state_dir=pool_state)


@pytest.fixture
def dir_pool(tmp_path: Path, pool_state: Path) -> DatasetDriver:
    root = tmp_path / "pool"
    root.mkdir()
    return from_pool(f"dir:{root}", step_seconds=60, state_dir=pool_state)


@pytest.fixture(params=["zfs", "dir"])
def pool(request: pytest.FixtureRequest) -> DatasetDriver:
    """Each kind of pool, for what holds on both."""
    driver: DatasetDriver = request.getfixturevalue(f"{request.param}_pool")
    return driver


@pytest.fixture
def tiny_zfs_pool(tmp_path: Path, pool_state: Path) -> Iterator[DatasetDriver]:
    """In a pool of its own with 64 MB, the least that ZFS takes: for filling it."""
    with _pool_of_its_own("ztiny", "64M", tmp_path, pool_state) as driver:
        yield driver


@pytest.fixture
def own_zfs_pool(tmp_path: Path, pool_state: Path) -> Iterator[DatasetDriver]:
    """In a pool of its own: for what works it so hard that no other test should be in it."""
    with _pool_of_its_own("zown", "4G", tmp_path, pool_state) as driver:
        yield driver


@contextmanager
def _pool_of_its_own(kind: str, size: str, place: Path, state: Path) -> Iterator[DatasetDriver]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = make_pool(f"{kind}-{worker}-{next(_numbers)}", place, size)
    sh("zfs", "create", "--", f"{name}/jails")
    try:
        yield from_pool(f"zfs:{name}/jails", step_seconds=60, state_dir=state)
    finally:
        end_pool(name)


@pytest.fixture
def tiny_dir_pool(tmp_path: Path, pool_state: Path) -> Iterator[DatasetDriver]:
    """On a tmpfs of 1 MB."""
    root = tmp_path / "tiny"
    root.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "tiny", root)
    yield from_pool(f"dir:{root}", step_seconds=60, state_dir=pool_state)
    sh("umount", "--lazy", root)


@pytest.fixture(params=["zfs", "dir"])
def tiny_pool(request: pytest.FixtureRequest) -> DatasetDriver:
    """Each kind of pool, so small that a test can fill it."""
    driver: DatasetDriver = request.getfixturevalue(f"tiny_{request.param}_pool")
    return driver
