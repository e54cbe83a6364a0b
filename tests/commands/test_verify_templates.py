"""`manage.py verify_templates`: which files are read, what is printed, what it ends with."""

from __future__ import annotations

import json

from templates_app import store
from templates_app.management.commands import verify_templates


def verified() -> list[tuple[str, str]]:
    return [(e.event.template, e.event.result) for e in store.read(types=["verified"])]


def test_all_or_those_that_are_named(shop):
    for name in ("db", "web"):
        shop.hand_make(name)
    shop.run("reload_templates")
    done = shop.run("verify_templates", "--all")
    assert done.status == 0
    assert done.out == "db\t0\tmatches\t\nweb\t0\tmatches\t\n"
    assert "The files of 2 generation(s) are as they were recorded." in done.err
    assert verified() == [("db", "matches"), ("web", "matches")]
    assert shop.run("verify_templates", "web").out == "web\t0\tmatches\t\n"
    assert shop.run("verify_templates", "web", "--all").out == "web\t0\tmatches\t\n"
    assert shop.run("verify_templates").status == 2
    assert shop.run("verify_templates", "nope").status == 1
    assert "template_not_found" in shop.run("verify_templates", "nope", "--all").err


def test_what_differs_is_printed_and_the_others_are_read_all_the_same(shop):
    for name in ("db", "web"):
        shop.hand_make(name)
    shop.run("reload_templates")
    place = shop.pool / "db-template@base"
    (place / "motd").chmod(0o4755)
    (place / "new").write_text("new")
    done = shop.run("verify_templates", "--all")
    assert done.status == 1
    assert done.out.splitlines() == [
        "db\t0\tdiffers\t1 added, 0 removed, 1 changed: ./motd, ./new",
        "  changed\tset-id\t./motd",
        "  added\t-\t./new",
        "web\t0\tmatches\t",
    ]
    assert "1 of 2 could not be verified." in done.err
    assert "import again" in done.err
    rows = [
        json.loads(line) for line in shop.run("verify_templates", "db", "--json").out.splitlines()
    ]
    assert [(row["result"], row["grave"]) for row in rows] == [("differs", 1)]


def test_how_far_it_is_is_said(shop, monkeypatch):
    monkeypatch.setattr(verify_templates, "_TELL_EVERY", 0.0)
    shop.hand_make("web")
    shop.run("reload_templates")
    assert "web: 1 entries, 7B read" in shop.run("verify_templates", "web").err
