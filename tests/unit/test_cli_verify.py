"""``coppice tpl verify``: which files the server is asked to read, and what is said of them."""

from __future__ import annotations

import json

import pytest

from tests.cli import Answer, FakeApi, run


def verified(name="web", generation=2, **more):
    shape = {
        "template": name, "generation": generation, "result": "matches", "detail": "",
        "entries": 812, "sizeBytes": 2048, "excepted": [], "treeDigest": "sha256:" + "ab" * 32,
        "foundDigest": "sha256:" + "ab" * 32, "dataset": "zroot/x", "differences": [],
        "added": 0, "removed": 0, "changed": 0, "grave": 0, "position": 9, "nextStep": "",
    }  # fmt: skip
    return {**shape, **more}


DIFFERS = verified(
    result="differs",
    detail="0 added, 0 removed, 1 changed, the first is ./bin/su.",
    differences=[
        {
            "path": "./bin/su",
            "change": "changed",
            "grave": ["set-id"],
            "fields": [{"name": "mode", "before": "0755", "after": "4755"}],
        }
    ],
    changed=1,
    grave=1,
    nextStep="Find out who changed them.",
)


@pytest.fixture
def house(api: FakeApi) -> FakeApi:
    api.on("GET", "/templates", [{"name": "db"}, {"name": "web"}])
    api.on("GET", "/templates/db/generations", [{"generation": 1}])
    api.on("GET", "/templates/web/generations", [{"generation": 2}, {"generation": 1}])
    for name in ("db", "web"):
        api.on(
            "POST",
            f"/templates/{name}/verify",
            lambda asked, name=name: Answer(json=verified(name, asked.body.get("generation", 2))),
        )
    return api


def asked_for(api: FakeApi) -> list[tuple[str, object]]:
    return [(one.path, one.body) for one in api.asked if one.method == "POST"]


def test_one_that_is_as_it_was(house):
    done = run(house.url, "tpl", "verify", "web")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split() == ["web", "2", "matches", "812", "2.0K", "-"]
    assert asked_for(house) == [("/templates/web/verify", {})]
    assert json.loads(run(house.url, "tpl", "verify", "web@1", "--json").stdout)["generation"] == 1


def test_every_generation_of_one_or_of_all(house):
    done = run(house.url, "tpl", "verify", "--all", "-H", "-o", "template,generation,result")
    assert done.stdout == "db\t1\tmatches\nweb\t1\tmatches\nweb\t2\tmatches\n"
    assert "Reading the files of web@1 (2 of 3)" in done.stderr
    assert len(json.loads(run(house.url, "tpl", "verify", "web", "--all", "--json").stdout)) == 2


@pytest.mark.parametrize("words", [[], ["web@1", "--all"]])
def test_it_must_be_said_which(house, words):
    assert run(house.url, "tpl", "verify", *words).exit_code == 2
    assert house.asked == []


def test_what_differs_is_shown_and_ends_with_1(house):
    house.on("POST", "/templates/web/verify", DIFFERS)
    done = run(house.url, "tpl", "verify", "web", "db", "-H", "-o", "template,result")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "web\tdiffers",
        "db\tmatches",
        "set-id\tchanged\t./bin/su\tmode 0755 → 4755",
    ]
    assert "0 added, 0 removed, 1 changed; 1 of them grave." in done.stderr
    assert "next:  Find out who changed them." in done.stderr
    assert run(house.url, "tpl", "verify", "web", "--json").exit_code == 1


def test_what_could_not_be_read_ends_with_1(house):
    house.on("POST", "/templates/web/verify", verified(result="unreadable", detail="Gone."))
    done = run(house.url, "tpl", "verify", "web")
    assert (done.exit_code, "Gone." in done.stdout) == (1, True)
