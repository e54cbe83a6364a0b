"""`manage.py settings`: every variable, its default, its value now."""

import json

from coppice_site.environment import VARIABLES


def test_it_lists_every_variable_with_its_meaning(shop, monkeypatch):
    monkeypatch.setenv("COPPICE_NODE", "jail7")
    monkeypatch.delenv("COPPICE_ENGINE", raising=False)
    done = shop.run("settings")
    assert done.status == 0
    for variable in VARIABLES:
        assert f"{variable.name}={variable.default}  now: " in done.out
        assert variable.meaning in done.out
    assert "COPPICE_NODE=  now: jail7\n" in done.out
    assert "COPPICE_ENGINE=native  now: (default)\n" in done.out


def test_as_json_secrets_are_only_said_to_be_set(shop, monkeypatch):
    for name in ("DATABASE_URL", "DJANGO_SECRET_KEY", "COPPICE_TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("COPPICE_URL", "http://x")
    out = shop.run("settings", "--json").out
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows) == {variable.name for variable in VARIABLES}
    assert rows["COPPICE_TOKEN"]["value"] == rows["DATABASE_URL"]["value"] == "(set)"
    assert (rows["COPPICE_URL"]["value"], rows["COPPICE_URL"]["of"]) == ("http://x", "client")
    assert "hunter2" not in out


def test_an_empty_secret_is_not_set(shop, monkeypatch):
    monkeypatch.setenv("COPPICE_TOKEN", "")
    rows = json.loads(shop.run("settings", "--json").out)
    (token,) = (row for row in rows if row["name"] == "COPPICE_TOKEN")
    assert token["value"] == ""
