"""The auditors' house in a real browser: how it looks and works, and that it asks nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.conftest import PASSWORD, House

VIEWS = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]


class Visitor:
    """A logged-in person with a browser, and everything that the browser complained about."""

    def __init__(self, browser: Browser, house: House, width: int, scheme: str) -> None:
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            base_url=house.url,
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", lambda said: self._heard(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.context.on("request", lambda request: self.asked.add(urlsplit(request.url).netloc))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def log_in(self, name: str, password: str = PASSWORD) -> None:
        self.page.goto("/admin/")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", password)
        self.page.click("#login-form button[type=submit]")
        self.page.wait_for_url("**/admin/")


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def visitor(request: pytest.FixtureRequest, browser: Browser, house: House) -> Iterator[Visitor]:
    made = Visitor(browser, house, *request.param)
    made.log_in("root")
    yield made
    made.context.close()


def rooms(house: House) -> dict[str, str]:
    story, table = house.story, "/admin/templates_app"
    return {
        "overview": "/admin/",
        "templates": f"{table}/template/",
        "template-blocked": f"{table}/template/fbsd14-min/",
        "template-signed": f"{table}/template/house/",
        "template-hostile": f"{table}/template/hostile/",
        "history": f"{table}/template/fbsd14-min/history/",
        "events": f"{table}/event/",
        "events-failed": f"{table}/event/?type=import-failed&when=week",
        "event": f"{table}/event/6/",
        "event-strange": f"{table}/event/{story.strange}/",
        "digests": "/admin/digests/",
        "digest": f"/admin/digests/{story.min2.digests.manifest}/",
        "digest-unknown": f"/admin/digests/sha256:{'0' * 64}/",
        "generations": f"{table}/generation/",
        "generation": f"{table}/generation/fbsd14-min@1/",
        "signatures": f"{table}/signature/",
        "sandboxes": f"{table}/sandbox/",
        "sandbox": f"{table}/sandbox/build-8/",
        "leases": f"{table}/lease/",
        "lease": f"{table}/lease/fbsd14-min/",
        "users": "/admin/auth/user/",
        "user": "/admin/auth/user/add/",
        "tokens": "/admin/knox/authtoken/",
        "nothing": "/admin/nothing/",
    }


def test_every_room_is_fit_to_be_seen(visitor: Visitor, house: House, tmp_path: Path):
    page, wrong = visitor.page, []
    for name, address in rooms(house).items():
        page.goto(address)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if wide[0] > wide[1]:
            wrong.append(f"{name}: {wide[0]} wide on {wide[1]}")
    complaints = [one for one in visitor.complaints if "404 (Not Found)" not in one]
    assert wrong == []
    assert complaints == []
    assert visitor.asked == {urlsplit(house.url).netloc}
