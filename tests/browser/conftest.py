"""One server with a story, one chromium: what the tests in the browser share."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.crowd import Crowd, Nothing
from tests.databases import default_database
from tests.house import Story
from tests.servers import Installation, Server

PASSWORD = "a-long-enough-password"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class House:
    """A server with the story, and whom it lets in."""

    def __init__(self, server: Server, story: Story) -> None:
        self.server, self.story = server, story
        self.url = server.url


@contextlib.contextmanager
def opened(story: Story, sqlite_template: Path) -> Iterator[House]:
    """A server of its own, with what the story tells."""
    place, database = story.place, story.place / "coppice.sqlite3"
    shutil.copyfile(sqlite_template, database)
    url = f"sqlite:///{database}"
    with default_database(url):
        settings = story.tell_of_the_signed()
        story.tell()
    texts = {name: str(value) for name, value in settings.items() if name != "COPPICE_STATE_DIR"}
    installation = Installation(
        place / "state",
        pool=texts.pop("COPPICE_POOL"),
        database_url=url,
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
        **texts,
    )
    installation.env["COPPICE_TRUSTED_KEYS"] = str(settings["COPPICE_TRUSTED_KEYS"])
    installation.manage("createsuperuser", "--noinput", "--username=root", "--email=root@localhost")
    server = Server(installation)
    server.start()
    try:
        yield House(server, story)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, django_db_blocker
) -> Iterator[House]:
    with (
        django_db_blocker.unblock(),
        opened(Story(tmp_path_factory.mktemp("house")), sqlite_template) as made,
    ):
        yield made


@pytest.fixture
def full_house(tmp_path: Path, sqlite_template: Path, django_db_blocker) -> Iterator[House]:
    with django_db_blocker.unblock(), opened(Crowd(tmp_path), sqlite_template) as made:
        yield made


@pytest.fixture
def empty_house(tmp_path: Path, sqlite_template: Path, django_db_blocker) -> Iterator[House]:
    """The day after it was installed: nothing was imported, nobody is trusted."""
    with django_db_blocker.unblock(), opened(Nothing(tmp_path), sqlite_template) as made:
        yield made


# Not for the session: while playwright runs, an event loop runs in this thread, and what other
# tests fork finds another database connection than they have set.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Playwright's loop would make Django think that every test of this process is asynchronous.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
