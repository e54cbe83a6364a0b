"""``coppice tpl files`` and ``diff``: pages put together, grave ones in words, bounded output."""

from __future__ import annotations

import json

import pytest

from tests.cli import Answer, FakeApi, in_terminal, run

SHA = "ab" * 32


def entry(path: str, **more):
    shape = {
        "path": path, "type": "file", "mode": "0755", "uid": 0, "gid": 5, "size": 2048,
        "sha256": SHA, "link": None, "xattrs": [], "flags": "", "hardlink": "",
    }  # fmt: skip
    return {**shape, **more}


@pytest.fixture
def tree(api: FakeApi) -> FakeApi:
    names = [f"./bin/{number:03}" for number in range(5)]

    def page(asked):
        at = names.index(asked.query["after"]) + 1 if "after" in asked.query else 0
        size = min(int(asked.query["limit"]), 2)  # a server may give less than it is asked for
        shown = names[at : at + size]
        more = at + size < len(names)
        return {
            "template": "web", "generation": 2, "treeDigest": f"sha256:{SHA}",
            "files": [entry(one) for one in shown], "after": shown[-1] if more else None,
        }  # fmt: skip

    api.on("GET", "/templates/web/files", lambda asked: Answer(json=page(asked)))
    return api


def test_pages_become_one_list(tree):
    done = run(tree.url, "tpl", "files", "web@2", "*", "-H", "-o", "mode,owner,size,path")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [f"0755\t0:5\t2.0K\t./bin/{n:03}" for n in range(5)]
    assert [one.query.get("after") for one in tree.asked] == [None, "./bin/001", "./bin/003"]
    assert {one.query["generation"] for one in tree.asked} == {"2"}
    assert {one.query["pattern"] for one in tree.asked} == {"*"}


def test_what_is_left_out_is_said(tree):
    done = run(tree.url, "tpl", "files", "web", "--limit", "3", "-H", "-o", "path")
    assert len(done.stdout.splitlines()) == 3
    assert "go on with --after './bin/002'" in done.stderr
    found = json.loads(run(tree.url, "tpl", "files", "web", "--limit", "3", "--json").stdout)
    assert (len(found["files"]), found["after"]) == (3, "./bin/002")


def test_a_server_that_pages_for_ever_is_not_followed(api):
    api.on("GET", "/templates/web/files", {"files": [], "after": "./bin"})
    assert run(api.url, "tpl", "files", "web").exit_code == 0
    assert len(api.asked) == 1


@pytest.mark.parametrize("which", ["web@", "web@x", "web@-1", "Web", "web@1@2", "web@1234567890"])
def test_a_generation_that_is_none_is_refused(api, which):
    done = run(api.url, "tpl", "files", which)
    assert done.exit_code == 2
    assert "malformed_name" in done.stderr
    assert api.asked == []


DIFFERENCES = [
    {"path": "./bin/su", "change": "changed", "grave": ["set-id", "owner"], "fields": [
        {"name": "mode", "before": "0755", "after": "4755"},
        {"name": "sha256", "before": SHA, "after": "cd" * 32}]},
    {"path": "./bin/new\\033", "change": "added", "grave": [], "fields": [
        {"name": "type", "before": None, "after": "file"},
        {"name": "size", "before": None, "after": "12"},
        {"name": "sha256", "before": None, "after": SHA}]},
]  # fmt: skip
COUNTS = {"added": 1, "removed": 0, "changed": 1, "grave": 1, "next": None}


def test_differences_are_told_in_words(api):
    api.on("GET", "/templates/web/diff", {**COUNTS, "differences": DIFFERENCES})
    done = run(api.url, "tpl", "diff", "web@1", "db@3", "-H")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "set-id,owner\tchanged\t./bin/su\tmode 0755 → 4755; sha256 abababababab → cdcdcdcdcdcd",
        "-\tadded\t./bin/new\\033\ttype=file size=12",
    ]
    assert done.stderr == "1 added, 0 removed, 1 changed; 1 of them grave.\n"
    assert api.asked[0].query == {
        "generation": "1", "other": "db", "otherGeneration": "3", "skip": "0", "limit": "500",
    }  # fmt: skip


def test_no_difference_is_said(api):
    same = {**COUNTS, "added": 0, "changed": 0, "differences": []}
    api.on("GET", "/templates/web/diff", same)
    done = run(api.url, "tpl", "diff", "web", "web")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "There is no difference.\n"


def test_on_a_narrow_terminal_the_grave_ones_are_seen(api):
    api.on("GET", "/templates/web/diff", {**COUNTS, "differences": DIFFERENCES})
    seen = in_terminal(api.url, "tpl", "diff", "web@1", "web@2", width=60)
    assert seen.status == 0
    assert "set-id,owner" in seen.text and "./bin/su" in seen.text
    assert all(len(line) < 120 for line in seen.text.splitlines())
