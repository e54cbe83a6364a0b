"""What is in a template's files, and what two have otherwise, in pages."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.callers import Api, post


@pytest.fixture
def two(api: Api) -> Api:
    """``web`` and ``db``, made by hand; ``db`` has a program that gives root's rights."""
    for name in ("web", "db"):
        api.hand_make(name, name)
        place = api.pool / f"{name}-template@base"
        (place / "bin").mkdir()
        for number in range(5):
            (place / "bin" / f"tool{number}").write_text(str(number))
    (place / "bin/tool3").chmod(0o4755)
    os.link(place / "bin/tool1", place / "bin/ein-däemon")
    (place / "bin/sh").symlink_to("tool0")
    os.setxattr(place / "bin/tool2", "user.origin", b"x")
    api.adopt()
    return api


def get(api: Api, address: str):
    answer = api.as_("gateway").get(address)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_the_files_of_a_template_are_listed(two: Api):
    found = get(two, "/templates/db/files")
    tree = get(two, "/templates/db")["treeDigest"]
    assert (found["template"], found["generation"], found["treeDigest"]) == ("db", 0, tree)
    files = {one["path"]: one for one in found["files"]}
    assert list(files) == [
        ".", "./bin", "./bin/ein-d\\303\\244emon", "./bin/sh",
        *(f"./bin/tool{number}" for number in range(5)), "./motd",
    ]  # fmt: skip
    assert found["after"] is None
    tool = files["./bin/tool3"]
    assert (tool["type"], tool["mode"], tool["size"]) == ("file", "4755", 1)
    assert files["./bin/sh"]["link"] == "tool0" and files["./bin/sh"]["mode"] is None
    assert files["./bin/tool1"]["hardlink"] == "./bin/ein-d\\303\\244emon"
    assert [one["name"] for one in files["./bin/tool2"]["xattrs"]] == ["user.origin"]


def test_in_pages_and_by_a_pattern(two: Api):
    seen, after = [], ""
    while after is not None:
        page = two.as_("gateway").get(
            "/templates/db/files", {"pattern": "tool*", "after": after, "limit": 2}
        )
        seen += [one["path"] for one in page.json()["files"]]
        after = page.json()["after"]
    assert seen == [f"./bin/tool{number}" for number in range(5)]
    assert get(two, "/templates/db/files?pattern=nothing")["files"] == []


def test_files_of_a_destroyed_generation_are_known(two: Api):
    assert two.as_("operator").delete("/templates/db").status_code == 204
    assert two.as_("gateway").get("/templates/db/files").json()["code"] == "template_not_found"
    assert len(get(two, "/templates/db/files?generation=0")["files"]) == 10


def test_what_differs_is_told_what_matters_most_first(two: Api):
    found = get(two, "/templates/web/diff?other=db")
    assert [one["path"] for one in found["differences"]][0] == "./bin/tool3"
    (grave, *_) = found["differences"]
    assert (grave["change"], grave["grave"]) == ("changed", ["set-id"])
    assert grave["fields"] == [{"name": "mode", "before": "0644", "after": "4755"}]
    assert {one["path"]: one["change"] for one in found["differences"]} == {
        "./bin/tool3": "changed",
        "./bin/ein-d\\303\\244emon": "added",
        "./bin/sh": "added",
        "./bin/tool1": "changed",
        "./bin/tool2": "changed",
        "./motd": "changed",
    }
    counts = [found[key] for key in ("added", "removed", "changed", "grave", "next")]
    assert counts == [2, 0, 4, 1, None]
    assert (found["before"]["template"], found["after"]["template"]) == ("web", "db")
    back = get(two, "/templates/db/diff?generation=0&other=web&otherGeneration=0")
    assert (back["added"], back["removed"]) == (0, 2)


def test_differences_come_in_pages(two: Api):
    whole = get(two, "/templates/web/diff?other=db")["differences"]
    seen, skip = [], 0
    while skip is not None:
        page = get(two, f"/templates/web/diff?other=db&skip={skip}&limit=4")
        seen += page["differences"]
        skip = page["next"]
    assert seen == whole


def test_a_template_is_what_it_is(two: Api):
    found = get(two, "/templates/web/diff")
    assert (found["differences"], found["added"], found["next"]) == ([], 0, None)


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("/templates/nope/files", 404, "template_not_found"),
        ("/templates/web/files?generation=7", 404, "generation_not_found"),
        ("/templates/web/files?generation=-1", 400, "malformed_request"),
        ("/templates/web/files?after=./not", 400, "malformed_request"),
        ("/templates/web/files?pattern=a%0Ab", 400, "malformed_request"),
        ("/templates/web/files?limit=2001", 400, "malformed_request"),
        ("/templates/web/diff?other=No", 400, "malformed_name"),
        ("/templates/web/diff?other=nope", 404, "template_not_found"),
        ("/templates/web/diff?otherGeneration=2", 404, "generation_not_found"),
    ],
)
def test_what_is_not_there_is_said(two: Api, address: str, status: int, code: str):
    answer = two.as_("auditor").get(address)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_manifest_that_is_nowhere_is_said(two: Api, settings):
    two.as_("operator").delete("/templates/db")
    shutil.rmtree(settings.COPPICE_STATE_DIR / "manifests")
    answer = two.as_("auditor").get("/templates/web/diff?other=db&otherGeneration=0")
    assert (answer.status_code, answer.json()["code"]) == (404, "manifest_missing")
    assert "db generation 0" in answer.json()["detail"]


def test_files_are_read_again_and_what_differs_is_answered(two: Api):
    operator = two.as_("operator")
    good = post(operator, "/templates/web/verify", {})
    assert (good.status_code, good.json()["result"], good.json()["nextStep"]) == (
        200,
        "matches",
        "",
    )
    (two.pool / "web-template@base/bin/tool0").chmod(0o4755)
    found = post(operator, "/templates/web/verify", {"generation": 0}).json()
    assert (found["result"], found["changed"], found["grave"]) == ("differs", 1, 1)
    (one,) = found["differences"]
    assert (one["path"], one["grave"]) == ("./bin/tool0", ["set-id"])
    assert one["fields"] == [{"name": "mode", "before": "0644", "after": "4755"}]
    assert "import again" in found["nextStep"]
    said = two.as_("auditor").get("/templates/web/events").json()[-1]
    assert (said["type"], said["position"]) == ("verified", found["position"])
    assert said["meta"]["actor"] == "operator"
    (finding,) = two.as_("auditor").get("/findings?template=web").json()
    assert (finding["code"], finding["blocks"]) == ("tree_changed", True)


@pytest.mark.parametrize("number", ["0", True, -1, 2**31, None])
def test_a_verification_takes_a_whole_number(two: Api, number: object):
    answer = post(two.as_("operator"), "/templates/web/verify", {"generation": number})
    assert answer.status_code == 400
    assert "generation" in answer.json()["errors"]
