"""The use cases in this process: a real pool, a real database, and images made of a dict of files.

A source of a scheme of its own stands in for registries, which have tests elsewhere: so that a test
can say what happens in the middle of a fetch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.db import connection

from templates_app import sources, store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import OutOfSpace
from templates_app.events import Digests, Meta, Recorded
from templates_app.names import Platform
from templates_app.services import common, imports
from templates_app.sources.base import Progress, Receipt, Report, Resolved, SourceContext
from tests.databases import KINDS
from tests.pools import sh, stubbornly

WHO = Meta(actor="operator", source="api", request_id="a-request", node="test")


@dataclass
class Shelf:
    """What the scheme ``made:`` serves; ``during`` is called in the middle of each fetch."""

    files: dict[str, str] = field(default_factory=lambda: {"etc/motd": "one"})
    during: Callable[[], None] = lambda: None
    into: Path = Path()  # of the fetch that runs


@dataclass(frozen=True)
class MadeSource:
    shelf: Shelf
    canonical: str
    context: SourceContext
    scheme: str = "made"

    @property
    def given(self) -> str:
        return self.canonical

    def resolve(self) -> Resolved:
        text = repr(sorted(self.shelf.files.items())).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        return Resolved(
            canonical=self.canonical,
            floating=True,
            digests=Digests(index=None, manifest=digest, config=digest),
            platform=Platform("linux", "amd64"),
            config={},
            layers=(),
            documents=(text,),
        )

    def fetch(self, resolved: Resolved, into: Path, report: Report, import_id: str) -> Receipt:
        report(Progress(stage="pull", done=0, total=1))
        for name, text in self.shelf.files.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.shelf.into = into
        self.shelf.during()
        report(Progress(stage="copy", done=1, total=1))
        return Receipt(engine="made")


#: Pool and database. Nothing of either depends on the other: each has its turn, and `make soak` has
#: each with each.
TURNS = [("zfs", "sqlite"), ("dir", "postgresql")]
if "SOAK_SECONDS" in os.environ:
    TURNS = [(pool, database) for pool in ("zfs", "dir") for database in KINDS]
each_once = pytest.mark.parametrize(("pool", "database_url"), TURNS, indirect=True)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf()
    monkeypatch.setitem(
        sources.SCHEMES, "made", lambda text, context: MadeSource(made, text, context)
    )
    return made


@pytest.fixture
def driver(
    pool: DatasetDriver, any_database: str, settings, pool_state: Path, shelf: Shelf
) -> Iterator[DatasetDriver]:
    """The pool that the use cases work on; their database and sources are set too."""
    settings.COPPICE_POOL = pool.pool
    settings.COPPICE_STATE_DIR = pool_state
    settings.COPPICE_NODE = "test"
    settings.COPPICE_DNS_NAMESERVER = ""
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    settings.COPPICE_TRUSTED_KEYS = None
    settings.COPPICE_READY_SECONDS = 0  # else a thread works on in the pool that goes
    pool.check()
    yield common.driver()
    connection.close()


def import_it(name: str = "web", **more: object) -> Recorded:
    return imports.import_template(name=name, source=f"made:{name}", context=WHO, **more)


def types() -> list[str]:
    return [one.type for one in store.read()]


def hand_make(driver: DatasetDriver, name: str, text: str = "by hand") -> Path:
    """``<name>-template@base`` as an operator makes it; where its files are."""
    full = driver.full_name(f"{name}-template")
    if driver.kind == "zfs":
        sh("zfs", "create", full)
        place = Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", full).strip())
    else:
        place = Path(f"{full}@base")
        place.mkdir()
    (place / "motd").write_text(text)
    if driver.kind == "zfs":
        sh("zfs", "snapshot", f"{full}@base")
    return place


@contextlib.contextmanager
def forging(driver: DatasetDriver, dataset: str) -> Iterator[Path]:
    """A generation's files, to be changed behind our back; ``dataset`` is its full name.

    Nobody changes a snapshot of ZFS: it is destroyed, and made anew with all that was in it.
    """
    if driver.kind == "dir":
        yield Path(f"{dataset}@base")
        return
    copy = Path(tempfile.mkdtemp())
    with driver.reading(common.relative(driver, dataset)) as path:
        sh("rsync", "-aHX", f"{path}/", copy)
    yield copy
    # Busy for a moment where it was made anew before, and so is mounted.
    stubbornly("zfs", "destroy", "-R", "--", dataset)
    sh("zfs", "create", "--", dataset)
    place = sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset).strip()
    sh("rsync", "-aHX", f"{copy}/", place)  # cp(1) sets ACLs, and zfs-fuse makes 0700 of them
    sh("zfs", "snapshot", f"{dataset}@base")
    shutil.rmtree(copy)


def standing(driver: DatasetDriver) -> list[str]:
    return [found.relative for found in driver.find_all()]


@contextlib.contextmanager
def no_room_for_clones(driver: DatasetDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def no_room(*_: object, **__: object) -> None:
        raise OutOfSpace("The pool is full.")

    with monkeypatch.context() as full:
        full.setattr(type(driver), "clone", no_room)
        yield
