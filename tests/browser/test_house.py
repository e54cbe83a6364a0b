"""The auditors' house in a real browser: how it looks and works, and that it asks nobody else.

With SCREENSHOTS=DIRECTORY in the environment it leaves a picture of every room there.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.browser.conftest import PASSWORD, House
from tests.browser.crowd import LONG_NAME, Crowd
from tests.house import layer

PICTURES = os.environ.get("SCREENSHOTS")
WIDE, PHONE = 1440, 390  # pixels


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
        self.requests: list[Request] = []
        self.page.on("console", lambda said: self._heard(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.context.on("request", lambda request: self.requests.append(request))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def asked(self) -> set[str]:
        """Whom the browser asked. What the policy forbids is asked nobody."""
        return {urlsplit(one.url).netloc for one in self.requests if one.failure != "csp"}

    def go(self, address: str) -> Page:
        self.page.goto(address)
        self.page.wait_for_selector("html:not([x-cloak])")
        return self.page

    def log_in(self, name: str, password: str = PASSWORD) -> None:
        self.go("/admin/")
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / "login.png")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", password)
        self.page.click("#login-form button[type=submit]")
        self.page.wait_for_url("**/admin/")


@pytest.fixture
def reader(browser: Browser, house: House) -> Iterator[Visitor]:
    made = Visitor(browser, house, WIDE, "light")
    made.log_in("root")
    yield made
    made.context.close()
    # The pages that are not there are answered with 404, which the browser mentions.
    assert [one for one in made.complaints if "404 (Not Found)" not in one] == []
    assert made.asked() == {urlsplit(house.url).netloc}


def rooms(house: House) -> dict[str, str]:
    story, table = house.story, "/admin/templates_app"
    return {
        "overview": "/admin/",
        "templates": f"{table}/template/",
        "template-blocked": f"{table}/template/fbsd14-min/change/",
        "template-signed": f"{table}/template/house/change/",
        "template-hostile": f"{table}/template/hostile/change/",
        "history": f"{table}/template/fbsd14-min/history/",
        "events": f"{table}/event/",
        "events-failed": f"{table}/event/?type=import-failed&when=week",
        "event": f"{table}/event/6/change/",
        "event-strange": f"{table}/event/{story.strange}/change/",
        "digests": "/admin/digests/",
        "digest": f"/admin/digests/{story.min2.digests.manifest}/",
        "digest-unknown": f"/admin/digests/sha256:{'0' * 64}/",
        "generations": f"{table}/generation/",
        "generation": f"{table}/generation/fbsd14-min@1/change/",
        "signature": f"{table}/signature/2/change/",
        "signatures": f"{table}/signature/",
        "keys": "/admin/keys/",
        "key": "/admin/keys/release/",
        "sandboxes": f"{table}/sandbox/",
        "sandbox": f"{table}/sandbox/build-8/change/",
        "findings": f"{table}/finding/",
        "finding": f"{table}/finding/{story.stopping}/change/",
        "leases": f"{table}/lease/",
        "lease": f"{table}/lease/fbsd14-min/change/",
        "app": f"{table}/",
        "users": "/admin/auth/user/",
        "user": "/admin/auth/user/add/",
        "tokens": "/admin/knox/authtoken/",
        "nothing": "/admin/nothing/",
    }


WANTING = Path(__file__).with_name("wanting.js").read_text()


def looked_at(visitor: Visitor, addresses: dict[str, str], prefix: str = "") -> dict[str, Any]:
    """What is wanting in each room, on a screen and on a phone, in the light and in the dark."""
    wanting = {}
    for name, address in addresses.items():
        page = visitor.go(address)
        for width in (WIDE, PHONE):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.evaluate(
                    "(dark) => document.documentElement.classList.toggle('dark', dark)",
                    scheme == "dark",
                )
                if found := page.evaluate(WANTING):
                    wanting[f"{name} {width} {scheme}"] = found
                if PICTURES:
                    picture = Path(PICTURES) / f"{prefix}{name}-{width}-{scheme}.png"
                    page.screenshot(path=picture, full_page=True)
    return wanting


def test_every_room_is_fit_to_be_seen(reader: Visitor, house: House):
    assert looked_at(reader, rooms(house)) == {}


def full_rooms(crowd: Crowd) -> dict[str, str]:
    table = "/admin/templates_app"
    return {
        "overview": "/admin/",
        "templates": f"{table}/template/",
        "template": f"{table}/template/{LONG_NAME}/change/",
        "history": f"{table}/template/{LONG_NAME}/history/",
        "events": f"{table}/event/",
        "events-oldest": f"{table}/event/?p=2",
        "event": f"{table}/event/{crowd.big}/change/",
        "event-refused": f"{table}/event/{crowd.refused}/change/",
        "event-policy": f"{table}/event/{crowd.policy}/change/",
        "digest": f"/admin/digests/{crowd.long1.digests.manifest}/",
        "digests": "/admin/digests/",
        "generations": f"{table}/generation/",
        "generation": f"{table}/generation/{LONG_NAME}@1/change/",
        "signatures": f"{table}/signature/",
        "signature-withdrawn": f"{table}/signature/{crowd.withdrawn}/change/",
        "keys": "/admin/keys/",
        **{f"key-{state}": f"/admin/keys/{one.label}/" for state, one in crowd.keys.items()},
        "sandboxes": f"{table}/sandbox/",
        "sandbox": f"{table}/sandbox/{'x' * 64}/change/",
        "findings": f"{table}/finding/",
        **{
            f"finding-{code}": f"{table}/finding/{crowd.findings[code]}/change/"
            for code in ("tree_changed", "orphan_dataset", "cleared")
        },
        "leases": f"{table}/lease/",
        "lease": f"{table}/lease/{LONG_NAME}/change/",
        "lease-of-nothing": f"{table}/lease/alpine-1/change/",
    }


@pytest.mark.slow
def test_a_full_house_is_fit_to_be_seen(browser: Browser, full_house: House):
    visitor = Visitor(browser, full_house, WIDE, "light")
    visitor.log_in("root")
    assert looked_at(visitor, full_rooms(full_house.story), "full-") == {}
    assert visitor.complaints == []
    visitor.context.close()


EMPTY = {
    "overview": "/admin/",
    **{name: f"/admin/{name}/" for name in ("digests", "keys")},
    **{
        name: f"/admin/templates_app/{name}/"
        for name in (
            "template", "event", "generation", "finding", "signature", "sandbox", "lease",
        )
    },
    "template-filtered": "/admin/templates_app/template/?signed=yes",
    "finding-searched": "/admin/templates_app/finding/?q=nothing",
    "users": "/admin/auth/group/",
}  # fmt: skip


def test_an_empty_house_is_fit_to_be_seen_and_says_that_it_is_empty(
    browser: Browser, empty_house: House
):
    visitor = Visitor(browser, empty_house, WIDE, "light")
    visitor.log_in("root")
    assert looked_at(visitor, EMPTY, "empty-") == {}
    assert visitor.complaints == []
    visitor.context.close()


def test_an_auditor_follows_a_digest_from_the_front_page_to_the_event(
    reader: Visitor, house: House
):
    page = reader.go("/admin/")
    page.get_by_label("A digest: index, manifest, config, tree or statement").fill(
        house.story.min2.digests.index.removeprefix("sha256:")
    )
    page.keyboard.press("Enter")
    page.get_by_text("index digest").wait_for()
    page.get_by_role("link", name="Event 9").first.click()
    assert page.locator(".cp-head h2").inner_text() == (
        "Refused to launch fbsd14-min generation 2: template_unsigned"
    )
    page.get_by_role("link", name="Next (10)").click()
    page.wait_for_url("**/event/10/change/")


def test_a_running_import_is_watched_to_its_end(reader: Visitor, house: House):
    """What the page shows follows the import; nobody reloads it."""
    database = house.server.installation.env["DATABASE_URL"].removeprefix("sqlite:///")
    broken = "UPDATE templates_app_lease SET {} WHERE template_name = 'broken'"
    with sqlite3.connect(database, timeout=10) as rows:
        columns = [row[1] for row in rows.execute("PRAGMA table_info(templates_app_lease)")]
        others = ", ".join(one for one in columns if one not in ("template_name", "import_id"))
        rows.execute(
            f"INSERT INTO templates_app_lease (template_name, import_id, {others})"  # noqa: S608
            f" SELECT 'broken', 'an-import', {others} FROM templates_app_lease"
        )
    page = reader.go("/admin/templates_app/lease/broken/change/")
    bar = page.get_by_role("progressbar", name="Layer 3")
    assert bar.evaluate("bar => bar.position") == 0.4
    layers = json.dumps([layer(3, "pull", 15_000_000, 20_000_000)])
    with sqlite3.connect(database, timeout=10) as rows:
        rows.execute(broken.format("layers = ?, stage = 'copy'"), [layers])
    page.get_by_text("14.3M of 19.1M").wait_for()
    assert bar.evaluate("bar => bar.position") == 0.75
    assert page.locator("#live .cp-word").first.inner_text() == "copy"
    with sqlite3.connect(database, timeout=10) as rows:
        rows.execute("DELETE FROM templates_app_lease WHERE template_name = 'broken'")
    page.get_by_text("failed at pull").wait_for()
    asked = len(reader.requests)
    page.wait_for_timeout(2500)
    assert len(reader.requests) == asked  # it is over, and nothing is asked any more


def test_a_list_is_filtered_and_searched_by_keyboard_and_mouse(reader: Visitor):
    page = reader.go("/admin/templates_app/template/")
    page.get_by_role("button", name="Filters").press("Enter")
    if PICTURES:
        page.get_by_title("Has a trusted key signed it? Yes").wait_for()
        page.screenshot(path=Path(PICTURES) / "filters.png")
    page.get_by_title("Has a trusted key signed it? Yes").click()
    page.wait_for_url("**/template/?signed=yes")
    assert page.locator("#result_list tr.data-row").count() == 1
    page = reader.go("/admin/templates_app/event/")
    page.keyboard.press("/")
    page.keyboard.type("build-7")
    page.keyboard.press("Enter")
    page.wait_for_url("**/event/?q=build-7")
    assert page.locator("#result_list tr.data-row").count() == 2


def test_the_first_stop_of_the_keyboard_is_visible(reader: Visitor):
    page = reader.go("/admin/digests/")
    unseen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            "(([a, b]) => a + b)([getComputedStyle(document.activeElement)]"
            ".flatMap((s) => [s.outlineStyle, s.boxShadow]))"
        )
        if shown == "nonenone" and page.evaluate("document.activeElement !== document.body"):
            unseen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 150)"))
    assert unseen == []


INTRUDE = """() => {
  window.ran = [];
  const put = (html) =>
    document.body.append(document.createRange().createContextualFragment(html));
  put("<script>ran.push('inline script')</script>");
  put(`<img src=x onerror="ran.push('handler')">`);
  put("<script src='https://example.org/x.js'></script>");
  put("<style>body { outline: 5px solid red }</style>");
  put("<iframe src='https://example.org/'></iframe>");
}"""


def test_nothing_that_got_into_a_page_would_run(browser: Browser, house: House):
    """The second line, should escaping ever fail: what the policy does in a real browser."""
    visitor = Visitor(browser, house, WIDE, "light")
    visitor.log_in("root")
    page = visitor.go("/admin/")
    page.evaluate(INTRUDE)
    page.wait_for_timeout(300)
    assert page.evaluate("ran") == []
    assert page.evaluate("getComputedStyle(document.body).outlineWidth") != "5px"
    assert len([one for one in visitor.complaints if "Content Security Policy" in one]) >= 4
    assert visitor.asked() == {urlsplit(house.url).netloc}
    visitor.context.close()


def test_styles_and_scripts_are_served_compressed_or_not_and_kept_by_the_browser(house: House):
    with httpx.Client(base_url=house.url, trust_env=False) as client:
        for name in ("coppice/house.css", "coppice/house.js", "unfold/css/styles.css"):
            first = client.get(f"/static/{name}")
            assert first.status_code == 200, name
            assert "max-age=3600" in first.headers["Cache-Control"]
            again = client.get(
                f"/static/{name}", headers={"If-Modified-Since": first.headers["Last-Modified"]}
            )
            assert again.status_code == 304, name
        assert client.get("/static/../manage.py").status_code == 404


def test_an_administrator_makes_an_auditor_in_the_browser(
    reader: Visitor, browser: Browser, house: House
):
    page, password = reader.go("/admin/auth/user/add/"), "correct-horse-battery"
    page.fill("#id_username", "audrey")
    page.fill("#id_password1", password)
    page.fill("#id_password2", password)
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/change/**")
    page.check("#id_is_staff")
    page.select_option("#id_groups_from, #id_groups", label="auditor")
    if page.locator("#id_groups_from").count():
        page.click("#id_groups_add, #id_groups_add_link")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/auth/user/**")
    audrey = Visitor(browser, house, PHONE, "dark")
    audrey.log_in("audrey", password)
    seen = audrey.go("/admin/templates_app/event/")
    assert seen.evaluate("document.documentElement.className") == "dark"
    assert seen.get_by_text("Refused to launch fbsd14-min").count() == 1
    assert audrey.page.goto("/admin/auth/user/").status == 403
    audrey.context.close()
