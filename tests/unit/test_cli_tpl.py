"""The commands that look and remove, against a server that answers as the API does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from templates_app.errors import GateRefused, TemplateInUse
from tests.cli import (
    DIGEST,
    NAME,
    Answer,
    FakeApi,
    decision,
    event,
    in_terminal,
    interrupt,
    problem,
    problem_of,
    run,
    sandbox,
    spawn,
    template,
)

# --- tpl list, tpl show --------------------------------------------------------------------------


def test_it_lists_templates(api: FakeApi):
    api.on("GET", "/templates", [template(), template(name="zz", signed=True, blocked=False)])
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "NAME        GEN    SIZE  STATE    IMPORTED          REFERENCE",
        "fbsd14-min    1  157.2M  blocked  2026-01-02 03:04  "
        "oci:quay.io/dougrabson/freebsd14-minimal:latest",
        "zz            1  157.2M  signed   2026-01-02 03:04  "
        "oci:quay.io/dougrabson/freebsd14-minimal:latest",
    ]


def test_for_scripts_there_is_no_heading_and_exact_numbers(api: FakeApi):
    api.on("GET", "/templates", [template()])
    done = run(api.url, "tpl", "list", "-H", "-p", "-o", "name,size,imported,digest,index")
    assert done.stdout == f"{NAME}\t164822016\t2026-01-02T03:04:05.000006Z\t{DIGEST}\t-\n"


def test_a_tab_in_a_value_cannot_make_a_column(api: FakeApi):
    api.on("GET", "/templates", [template(platform="a\tb\nc")])
    assert run(api.url, "tpl", "list", "-Ho", "platform,name").stdout == f"a\\tb\\nc\t{NAME}\n"


def test_an_unknown_column_is_a_usage_error_that_names_all(api: FakeApi):
    done = run(api.url, "tpl", "list", "-o", "name,sise")
    assert done.exit_code == 2
    assert "no column 'sise'; there are name, generation, size" in done.stderr


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ((), {}),
        (("--signed",), {"signed": "true"}),
        (("--unsigned",), {"signed": "false"}),
        (("--digest", "ab" * 32), {"digest": DIGEST}),
        (("--platform", "freebsd/amd64"), {"platform": "freebsd/amd64"}),
    ],
)
def test_filters_are_the_servers(api: FakeApi, words: tuple[str, ...], query: dict[str, str]):
    api.on("GET", "/templates", [])
    done = run(api.url, "tpl", "list", *words)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "There is nothing to list." in done.stderr
    assert api.asked[0].query == query


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"missing": True, "signed": True}, "missing"),
        ({"signed": True, "blocked": False}, "signed"),
        ({"signed": False, "blocked": True}, "blocked"),
        ({"signed": True, "blocked": True}, "blocked"),
        ({"signed": False, "blocked": False}, "unsigned"),
    ],
)
def test_the_state_is_one_word(api: FakeApi, changes: dict[str, Any], word: str):
    api.on("GET", "/templates", [template(**changes)])
    assert run(api.url, "tpl", "list", "-Ho", "state").stdout == f"{word}\n"


def test_it_shows_one_template(api: FakeApi):
    api.on("GET", f"/templates/{NAME}", template(findings=["Programs will fail at exec."]))
    done = run(api.url, "tpl", "show", NAME)
    lines = done.stdout.splitlines()
    assert "size        157.2M (164822016 bytes, 812 entries)" in lines
    assert "reference   oci:quay.io/dougrabson/freebsd14-minimal:latest (floating)" in lines
    assert f"manifest    {DIGEST}" in lines
    assert "programs    native: All programs are for freebsd/amd64." in lines
    assert "moved       45.8M fetched, 0B from the cache, 152.6M written" in lines
    assert "took        resolve 0.2 s, pull 5.4 s" in lines
    assert "deviation   etc/resolv.conf: planted" in lines
    assert "finding     Programs will fail at exec." in lines
    assert f"next:  coppice tpl sign {NAME}" in done.stderr


def test_an_adopted_template_without_image_is_shown(api: FakeApi):
    bare = template(
        adopted=True, digest=None, reference="", verdict=None, generation=0, signed=True,
        digests={"index": None, "manifest": None, "config": None}, milliseconds={},
        fetchedBytes=None, cachedBytes=None, writtenBytes=None,
    )  # fmt: skip
    api.on("GET", f"/templates/{NAME}", bare)
    done = run(api.url, "tpl", "show", NAME)
    assert "moved" not in done.stdout and "took" not in done.stdout
    assert done.exit_code == 0
    assert "generation  0 (hand-made)" in done.stdout
    assert "next:" not in done.stderr


@pytest.mark.parametrize("name", ["", "UPPER", "../etc", "a/b", "-x", "a" * 65, "ab" * 32, "x\x1b"])
def test_a_malformed_name_is_never_asked_for(api: FakeApi, name: str):
    for words in (["tpl", "show"], ["tpl", "destroy", "--yes"], ["sandbox", "destroy"]):
        done = run(api.url, *words, "--", name)
        assert done.exit_code == 2, words
        assert "malformed_name" in done.stderr
    assert api.asked == []


# --- history, events, digest ---------------------------------------------------------------------


def test_history_is_when_where_who_what(api: FakeApi):
    api.on("GET", f"/templates/{NAME}/events", [event(1), event(7, "signed", sentence="Signed it")])
    done = run(api.url, "tpl", "history", NAME)
    assert done.stdout.splitlines()[0].split() == ["TIME", "POSITION", "ACTOR", "EVENT"]
    assert done.stdout.splitlines()[2] == "2026-01-02 03:04:05         7  alice  Signed it"


def test_a_long_history_is_asked_for_page_by_page(api: FakeApi):
    def page(asked) -> Any:
        first = int(asked.query["after"]) + 1
        numbers = range(first, min(first + int(asked.query["limit"]), 1203))
        return Answer(json=[event(number) for number in numbers])

    api.on("GET", f"/templates/{NAME}/events", page)
    done = run(api.url, "tpl", "history", NAME, "-H", "-o", "position")
    assert done.stdout.split() == [str(number) for number in range(1, 1203)]
    assert [asked.query["after"] for asked in api.asked] == ["0", "500", "1000"]


def feed(total: int):
    """``GET /events`` of a log with ``total`` events."""

    def answer(asked: Any) -> Answer:
        after, limit = int(asked.query["after"]), int(asked.query["limit"])
        page = [event(n) for n in range(after + 1, min(total, after + limit) + 1)]
        return Answer(json={"events": page, "after": page[-1]["position"] if page else after})

    return answer


def test_events_are_read_page_by_page_to_the_end(api: FakeApi):
    api.on("GET", "/events", feed(1203))
    done = run(api.url, "events", "--after", "2", "-Ho", "position")
    assert done.stdout.split() == [str(n) for n in range(3, 1204)]
    assert [one.query["after"] for one in api.asked] == ["2", "502", "1002"]


def test_a_limit_ends_the_reading(api: FakeApi):
    api.on("GET", "/events", feed(1203))
    assert len(run(api.url, "events", "--limit", "501", "-H").stdout.splitlines()) == 501
    assert [one.query["limit"] for one in api.asked] == ["500", "1"]


def test_events_as_json_are_one_a_line(api: FakeApi):
    api.on("GET", "/events", feed(3))
    lines = run(api.url, "events", "--json").stdout.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("after", [None, "x", 0, -1])
def test_a_cursor_that_stands_still_is_no_endless_loop(api: FakeApi, after: object):
    api.on("GET", "/events", {"events": [event(n) for n in range(1, 501)], "after": after})
    done = run(api.url, "events", "-H")
    assert done.exit_code == 1
    assert "as the cursor after 0" in done.stderr


def test_following_shows_what_comes_and_outlives_a_restart_of_the_server(api: FakeApi):
    looks: list[int] = []

    def answer(asked: Any) -> Answer:
        looks.append(int(asked.query["after"]))
        if len(looks) == 3:
            return Answer(502, content=b"restarting", kind="text/html")
        return feed(min(len(looks), 5))(asked)

    api.on("GET", "/events", answer)
    following = spawn(api.url, "events", "--follow", "-Ho", "position")
    try:
        assert following.stdout is not None
        got = [following.stdout.readline() for _ in range(4)]
        interrupt(following)
        _out, err = following.communicate(timeout=10)
    finally:
        following.kill()
    assert got == ["1\n", "2\n", "3\n", "4\n"]
    assert "Trying again" in err
    assert following.returncode == 130


def test_following_ends_where_the_token_is_refused(api: FakeApi):
    api.on("GET", "/events", problem(401, "not_authenticated"))
    assert run(api.url, "events", "--follow").exit_code == 1


def test_a_digest_is_shown_with_all_that_is_known(api: FakeApi):
    facts = {
        "digest": DIGEST,
        "kinds": ["manifest"],
        "generations": [
            {"template": NAME, "generation": 1, "reference": "oci:x", "treeDigest": DIGEST,
             "importedAt": "2026-01-02T03:04:05Z", "importedBy": "alice", "destroyed": True},
        ],
        "signatures": [],
        "sandboxes": [sandbox()],
        "events": [event()],
    }  # fmt: skip
    api.on("GET", f"/digests/{DIGEST}", facts)
    done = run(api.url, "digest", "show", DIGEST.removeprefix("sha256:"))
    assert done.exit_code == 0
    assert "kind    manifest digest" in done.stdout
    assert "generations: 1" in done.stdout
    assert "signatures: none" in done.stdout
    assert "build-7" in done.stdout
    assert json.loads(run(api.url, "digest", "show", DIGEST, "--json").stdout) == facts


def test_what_is_no_digest_is_refused_here(api: FakeApi):
    done = run(api.url, "digest", "show", "sha256:xyz")
    assert done.exit_code == 2
    assert "malformed_digest" in done.stderr
    assert api.asked == []


# --- the gate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("tpl", "gate", NAME), ("sandbox", "explain", "--template", NAME)]
)
def test_the_gates_decision_is_shown_check_by_check(api: FakeApi, words: tuple[str, ...]):
    api.on("GET", f"/templates/{NAME}/gate", decision())
    done = run(api.url, *words)
    assert done.exit_code == 5
    assert "✗ refused: a launch would be answered 403 template_unsigned" in done.stdout
    assert "✓ passed  dataset_present  It is on the pool." in done.stdout
    assert "✗ failed  signed           Its statement has no signature." in done.stdout
    assert f"next:            Sign it: coppice tpl sign {NAME}" in done.stdout


def test_an_allowed_launch_exits_0_and_names_the_next_command(api: FakeApi):
    api.on("GET", f"/templates/{NAME}/gate", decision(allowed=True, signed=True))
    done = run(api.url, "tpl", "gate", NAME)
    assert done.exit_code == 0
    assert "✓ allowed" in done.stdout
    assert "yes, by alice (0123456789abcdef)" in done.stdout
    assert f"next:  coppice sandbox create --template {NAME}" in done.stderr


def test_where_the_gate_is_off_an_unsigned_template_may_be_launched_but_is_not_verified(
    api: FakeApi,
):
    api.on("GET", f"/templates/{NAME}/gate", decision(allowed=True, mode="off"))
    assert run(api.url, "tpl", "gate", NAME).exit_code == 0
    assert run(api.url, "tpl", "signed", NAME).exit_code == 5


def test_a_refusal_is_said_with_every_check_and_403(api: FakeApi):
    refused = GateRefused(
        f"{NAME}: Its statement has no signature.",
        gate_code="template_unsigned",
        hint=f"Sign it: coppice tpl sign {NAME}",
        extra={"decision": decision()},
    )
    api.on("POST", "/sandboxes", problem_of(refused))
    done = run(api.url, "sandbox", "create", "--template", NAME)
    assert (done.exit_code, done.stdout) == (5, "")
    assert "(template_unsigned, 403)" in done.stderr
    assert "✓ passed  dataset_present" in done.stderr
    assert "✗ failed  signed" in done.stderr
    assert done.stderr.count(f"Sign it: coppice tpl sign {NAME}\n") == 1
    as_json = run(api.url, "sandbox", "create", "--template", NAME, "--json")
    assert as_json.exit_code == 5
    assert json.loads(as_json.stderr)["checks"][1]["code"] == "template_unsigned"


# --- sandboxes -----------------------------------------------------------------------------------


def test_it_creates_a_sandbox(api: FakeApi):
    api.on("POST", "/sandboxes", Answer(201, json=sandbox()))
    done = run(api.url, "sandbox", "create", "--template", NAME, "--name", "build-7")
    assert done.exit_code == 0
    assert done.stdout == (
        "sandbox=build-7 dataset=zroot/jails/sandbox-build-7"
        f" origin=zroot/jails/coppice/{NAME}-g1-3f2a9c01@base\n"
    )
    assert api.asked[0].body == {"template": NAME, "name": "build-7"}
    assert done.stderr == ""


def test_a_launch_from_an_unsigned_template_is_remarked(api: FakeApi):
    api.on("POST", "/sandboxes", Answer(201, json=sandbox(signed=False)))
    done = run(api.url, "sandbox", "create", "--template", NAME)
    assert api.asked[0].body == {"template": NAME}
    assert "unsigned" in done.stderr


def test_it_lists_and_destroys_sandboxes(api: FakeApi):
    api.on("GET", "/sandboxes", [sandbox()])
    api.on("DELETE", "/sandboxes/build-7", Answer(204))
    listed = run(api.url, "sandbox", "list", "--template", NAME, "-Ho", "id,dataset")
    assert listed.stdout == "build-7\tzroot/jails/sandbox-build-7\n"
    assert api.asked[0].query == {"template": NAME}
    gone = run(api.url, "sandbox", "destroy", "build-7")
    assert (gone.exit_code, gone.stdout) == (0, "")
    assert "Destroyed sandbox build-7." in gone.stderr
    assert run(api.url, "sandbox", "destroy", "build-7", "--json").stdout == "{}\n"


# --- destroy -------------------------------------------------------------------------------------

WOULD = {"datasets": [f"zroot/jails/{NAME}-template", f"zroot/jails/coppice/{NAME}-g1-3f2a9c01"]}


def destroyable(api: FakeApi) -> None:
    def answer(asked: Any) -> Answer:
        return Answer(json=WOULD) if asked.query.get("dryRun") == "true" else Answer(204)

    api.on("DELETE", f"/templates/{NAME}", answer)


def _deleted(api: FakeApi) -> bool:
    return any(one.method == "DELETE" and "dryRun" not in one.query for one in api.asked)


def test_a_dry_run_prints_the_datasets_and_destroys_nothing(api: FakeApi):
    destroyable(api)
    done = run(api.url, "tpl", "destroy", NAME, "--dry-run", "--yes")
    assert done.stdout.splitlines() == WOULD["datasets"]
    assert not _deleted(api)


def test_retire_says_what_stays_for_which_clones(api: FakeApi):
    kept = [{"generation": 1, "dataset": "zroot/x", "clones": ["zroot/jails/sandbox-a"]}]
    api.on("DELETE", f"/templates/{NAME}", {**WOULD, "kept": kept})
    done = run(api.url, "tpl", "destroy", NAME, "--retire", "--dry-run")
    assert api.asked[0].query == {"dryRun": "true", "retire": "true"}
    assert done.stdout.splitlines() == WOULD["datasets"]
    assert "Generation 1 stays for zroot/jails/sandbox-a\n" in done.stderr
    api.on("DELETE", f"/templates/{NAME}", Answer(204))
    assert run(api.url, "tpl", "destroy", NAME, "--retire", "--yes").exit_code == 0
    assert api.asked[1].query == {"retire": "true"}


def test_without_a_terminal_it_wants_a_yes(api: FakeApi):
    destroyable(api)
    done = run(api.url, "tpl", "destroy", NAME, stdin="y\n")
    assert done.exit_code == 2
    assert "give --yes" in done.stderr
    assert api.asked == []
    assert run(api.url, "tpl", "destroy", NAME, "--yes").exit_code == 0
    assert _deleted(api)


@pytest.mark.parametrize(
    ("typed", "status", "deleted"),
    [
        ("y\n", 0, True),
        ("n\n", 1, False),
        ("\n", 1, False),
        ("\x03", 130, False),
        ("\x04", 1, False),
    ],
    ids=["yes", "no", "enter", "ctrl-c", "ctrl-d"],
)
def test_on_a_terminal_it_shows_what_goes_and_asks(
    api: FakeApi, typed: str, status: int, deleted: bool
):
    destroyable(api)
    seen = in_terminal(api.url, "tpl", "destroy", NAME, typed=typed, await_text="[y/N]")
    assert WOULD["datasets"][1] in seen.text
    assert seen.status == status, seen.text
    assert _deleted(api) is deleted


def test_a_template_in_use_names_its_clones(api: FakeApi):
    error = TemplateInUse("It is in use.", extra={"clones": ["zroot/jails/sandbox-a"]})
    api.on("DELETE", f"/templates/{NAME}", problem_of(error))
    done = run(api.url, "tpl", "destroy", NAME, "--yes")
    assert done.exit_code == 4
    assert "clone: zroot/jails/sandbox-a" in done.stderr
    assert "next:  Destroy the clones first" in done.stderr


# --- reload --------------------------------------------------------------------------------------


FINDING = {
    "code": "tree_changed", "subject": "zroot/x", "template": NAME, "generation": 2,
    "detail": "Differs.", "blocks": True, "nextStep": "Import it again.", "position": 7,
    "foundAt": "2026-01-02T03:04:05Z", "seenPosition": 9,
}  # fmt: skip


def test_findings_are_listed_with_what_to_do(api: FakeApi):
    api.on("GET", "/findings", [FINDING, {**FINDING, "template": "", "generation": None}])
    done = run(api.url, "tpl", "findings", NAME, "-o", "code,touches,stops,subject")
    assert api.asked[0].query == {"template": NAME}
    assert f"tree_changed  {NAME}@2  yes" in done.stdout
    assert done.stdout.splitlines()[2].split() == ["tree_changed", "-", "yes", "zroot/x"]
    assert "tree_changed zroot/x (stops launches)\n  next:  Import it again." in done.stderr
    quiet = run(api.url, "tpl", "findings", "-Ho", "next")
    assert quiet.stdout == "Import it again.\n" * 2 and quiet.stderr == ""
    assert json.loads(run(api.url, "tpl", "findings", "--json").stdout)[0] == FINDING


def test_a_template_is_shown_with_its_findings(api: FakeApi):
    blocked = template(signed=True, blocked=True, openFindings=[FINDING])
    api.on("GET", f"/templates/{NAME}", blocked)
    done = run(api.url, "tpl", "show", NAME)
    assert "state       blocked" in done.stdout
    assert "finding     tree_changed (event 7, stops launches): Differs." in done.stdout
    assert done.stderr == "next:  Import it again.\n"


def test_reload_says_what_differs(api: FakeApi):
    found = {
        "pool": "zfs:zroot/jails",
        "position": 9,
        "added": [{"template": "hand-made"}],
        "changed": [],
        "missing": ["gone"],
        "returned": ["back"],
        "findings": [
            {
                "code": "orphan_dataset",
                "subject": "zroot/x",
                "detail": "Unknown.",
                "blocks": False,
                "nextStep": "Look at it.",
            },
        ],
        "fixed": [{"code": "alias_stale", "subject": "zroot/y", "done": "Moved."}],
    }
    api.on("POST", "/templates/reload", found)
    done = run(api.url, "tpl", "reload")
    assert done.stdout.splitlines() == [
        "added     hand-made",
        "missing   gone",
        "returned  back",
        "finding   orphan_dataset: zroot/x: Unknown.",
        "fixed     alias_stale: zroot/y: Moved.",
    ]
    assert api.asked[0].body == {"dryRun": False, "fix": False, "verify": False}
    dry = run(api.url, "tpl", "reload", "--fix", "--verify", "-n")
    assert api.asked[1].body == {"dryRun": True, "fix": True, "verify": True}
    assert "fixable   alias_stale: zroot/y: Moved." in dry.stdout
    assert "Nothing was changed: this was a dry run." in dry.stderr
    assert "orphan_dataset zroot/x\n  next:  Look at it." in done.stderr
    assert json.loads(run(api.url, "tpl", "reload", "--json").stdout) == found


def test_reload_without_difference_says_so(api: FakeApi):
    api.on("POST", "/templates/reload", {"pool": "p", "position": 9, "added": []})
    done = run(api.url, "tpl", "reload")
    assert done.stdout == ""
    assert "No difference found (p, event 9)." in done.stderr


# --- pipes ---------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_traceback(api: FakeApi):
    api.on("GET", "/events", feed(400))
    process = spawn(api.url, "events", "-H")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(10) in (0, 1)
    assert err == ""


def test_data_that_cannot_be_written_is_a_failure(api: FakeApi):
    api.on("GET", "/templates", [template()])
    with Path("/dev/full").open("w") as full:
        process = spawn(api.url, "tpl", "list", stdout=full)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "The output cannot be written: No space left on device." in err


# --- tpl generations, tpl rollback ---------------------------------------------------------------

ROWS = [
    {"generation": 3, "current": True, "clones": [], "sizeBytes": 1024},
    {"generation": 2, "current": False, "clones": ["z/sandbox-a", "z/sandbox-b"]},
    {"generation": 1, "current": False, "clones": []},
]


def test_it_lists_generations_with_what_keeps_them(api: FakeApi):
    api.on("GET", f"/templates/{NAME}/generations", ROWS)
    done = run(api.url, "tpl", "generations", NAME, "-H", "-o", "generation,state,clones,names")
    assert done.stdout.splitlines() == [
        "3\tcurrent\t0\t-",
        "2\tin-use\t2\tz/sandbox-a,z/sandbox-b",
        "1\tearlier\t0\t-",
    ]
    as_json = run(api.url, "tpl", "generations", NAME, "--json")
    assert json.loads(as_json.stdout) == ROWS


@pytest.mark.parametrize(("words", "body"), [((), {}), (("--to", "2"), {"to": 2})])
def test_a_rollback_says_which_generation_it_is_now(api: FakeApi, words, body):
    api.on("POST", f"/templates/{NAME}/rollback", template(generation=2))
    done = run(api.url, "tpl", "rollback", NAME, *words)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"{NAME} is generation 2 now." in done.stderr
    assert api.asked[0].body == body


def test_a_rollback_to_what_the_gate_refuses_exits_with_5(api: FakeApi):
    refused = GateRefused("No.", gate_code="template_unsigned", extra={"decision": decision()})
    api.on("POST", f"/templates/{NAME}/rollback", problem_of(refused))
    assert run(api.url, "tpl", "rollback", NAME).exit_code == 5


def test_drift_is_told_with_what_to_do_and_ends_with_6_where_a_registry_is_silent(api: FakeApi):
    moved = {
        "template": NAME, "generation": 2, "reference": "oci:quay.io/x/y:1", "state": "moved",
        "importedDigest": DIGEST, "foundDigest": "sha256:" + "cd" * 32,
        "since": "2026-01-02T03:04:05Z", "detail": "", "changed": True,
    }  # fmt: skip
    api.on("POST", "/drift", [moved])
    done = run(api.url, "tpl", "drift", NAME)
    assert (done.exit_code, api.asked[0].body) == (0, {"templates": [NAME]})
    assert f"{NAME}    2  moved  abababababab  cdcdcdcdcdcd" in done.stdout
    assert f"next:  coppice tpl import {NAME} oci:quay.io/x/y:1 --force" in done.stderr
    silent = {**moved, "state": "unreachable", "foundDigest": None, "detail": "No answer."}
    api.on("POST", "/drift", [moved, silent])
    done = run(api.url, "tpl", "drift", "--json")
    assert done.exit_code == 6
    assert json.loads(done.stdout) == [moved, silent]
    assert f"{NAME}: No answer." in run(api.url, "tpl", "drift").stderr


def test_df_says_what_generations_take_and_what_is_free(api: FakeApi):
    one = {
        "template": NAME, "generation": 2, "current": True, "dataset": "z/coppice/x",
        "referencedBytes": 164822016, "uniqueBytes": 1024, "sharedBytes": 164820992,
        "origin": "z/coppice-layers/i@1", "clones": ["z/a", "z/b"], "clonesBytes": 2048,
    }  # fmt: skip
    found = {
        "pool": "zfs:z", "availableBytes": 2**30, "usedBytes": 2**20, "marginBytes": 2**27,
        "layersBytes": None, "cacheBytes": 0, "cacheAvailableBytes": 2**31, "generations": [one],
    }  # fmt: skip
    api.on("GET", "/space", found)
    done = run(api.url, "tpl", "df", NAME)
    assert api.asked[0].query == {"template": NAME}
    assert f"{NAME}    2  yes          157.2M    1.0K  157.2M       2     2.0K" in done.stdout
    assert "zfs:z: 1.0M used, 1.0G free, 128.0M of it to stay free; layer states -" in done.stderr
    assert run(api.url, "tpl", "df", "-Hpo", "unique,names").stdout == "1024\tz/a, z/b\n"
    assert json.loads(run(api.url, "tpl", "df", "--json").stdout) == found
