"""What is shown: tables in any width, and nothing of the server's text that steers a terminal."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.cli.output import (
    Column,
    aligned,
    clean,
    fitting,
    minute,
    moment,
    pick,
    short_digest,
    shown,
    size,
)
from tests.cli import DIGEST, FakeApi, event, in_terminal, problem, run, template

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
EVIL = "a\x1b]0;owned\x07\x1b[2Jb\r\nc\x9b31md\u202ee[bold red]f[/]\x7f\ud800"


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str):
    assert clean(text).isprintable()


def test_clean_keeps_what_is_harmless():
    assert clean("zroot/jails/Zoë-✓ 東京 [bold]") == "zroot/jails/Zoë-✓ 東京 [bold]"
    assert clean("\x1b[31m\u202e") == "\\x1b[31m\\u202e"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (["a", None], "a, -"),
    ],
)
def test_a_json_value_has_one_way_to_be_shown(value: object, text: str):
    assert shown(value) == text


def test_sizes_times_and_digests_have_a_short_form():
    assert size(164822016) == "157.2M"
    assert size(None) == "-"
    assert moment("2026-01-02T03:04:05.000006Z") == "2026-01-02 03:04:05"
    assert minute("2026-01-02T03:04:05.000006Z") == "2026-01-02 03:04"
    assert moment("soon") == "soon"
    assert short_digest(DIGEST) == "abababababab"
    assert short_digest(None) == "-"


def test_pick_finds_members_and_never_raises():
    assert pick({"a": {"b": 1}}, "a.b") == 1
    assert pick({"a": 1}, "a.b.c") is None
    assert pick({"a": 1}, "") == {"a": 1}
    assert pick(["a"], "a") is None


COLUMNS = (
    Column(name="name", at="name"),
    Column(name="count", at="count", right=True, rank=1),
    Column(name="text", at="text", least=10, rank=2),
)
CELLS = [["one", "1", "x" * 30], ["東京", "1000", ""]]


def test_columns_are_aligned_by_what_a_terminal_shows():
    assert aligned(COLUMNS, CELLS) == [
        "NAME  COUNT  TEXT",
        "one       1  " + "x" * 30,
        "東京   1000",
    ]


@pytest.mark.parametrize(
    ("width", "kept"), [(80, [0, 1, 2]), (24, [0, 1, 2]), (22, [0, 1]), (9, [0])]
)
def test_the_highest_rank_goes_first_where_there_is_no_room(width: int, kept: list[int]):
    assert fitting(COLUMNS, CELLS, width) == kept


# --- the server's text cannot steer the terminal -------------------------------------------------


def _evil(api: FakeApi) -> None:
    api.on("GET", "/templates", [template(name=EVIL, reference=EVIL, platform=EVIL)])
    api.on("GET", "/templates/x", template(reference=EVIL, findings=[EVIL], importedBy=EVIL))
    api.on("GET", "/templates/x/events", [event(sentence=EVIL)])
    api.on("GET", "/events", {"events": [event(sentence=EVIL)], "after": 1})
    api.on("GET", "/templates/gone", problem(404, EVIL, EVIL, nextStep=EVIL, clones=[EVIL]))


COMMANDS = [
    ("tpl", "list"),
    ("tpl", "list", "-H"),
    ("tpl", "list", "--json"),
    ("tpl", "show", "x"),
    ("tpl", "history", "x"),
    ("events",),
    ("tpl", "show", "gone"),
    ("tpl", "show", "gone", "--json"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_control_character_of_the_server_is_written(api: FakeApi, words: tuple[str, ...]):
    _evil(api)
    done = run(api.url, *words)
    for text in (done.stdout, done.stderr):
        assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []


@pytest.mark.parametrize(
    "words", [COMMANDS[0], COMMANDS[3], COMMANDS[4], COMMANDS[6]], ids=" ".join
)
def test_nor_on_a_terminal_and_markup_is_text(api: FakeApi, words: tuple[str, ...]):
    _evil(api)
    seen = in_terminal(api.url, *words, width=200)
    assert "\x07" not in seen.text
    assert "\x1b]" not in seen.text
    assert "\x1b[2J" not in seen.text
    assert "\x9b" not in seen.text
    assert "[bold red]" in seen.text


# --- a terminal, or not --------------------------------------------------------------------------


def test_without_a_terminal_lines_are_as_long_as_they_are(api: FakeApi):
    api.on("GET", "/templates", [template(reference="oci:quay.io/" + "x" * 300)])
    done = run(api.url, "tpl", "list")
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["NAME", "GEN", "SIZE", "STATE", "IMPORTED", "REFERENCE"]
    assert row.endswith("x" * 300)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_no_line_is_wider_than_it(api: FakeApi, width: int):
    api.on("GET", "/templates", [template(), template(name="debian12-minimal")])
    seen = in_terminal(api.url, "tpl", "list", width=width)
    text = ESCAPE.sub("", seen.text)
    assert seen.status == 0
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "fbsd14-min" in text
    assert "blocked" in text
    assert ("No room for:" in text) is (width == 40)


def test_a_long_name_is_folded_before_other_columns_go(api: FakeApi):
    long = "a-name-that-is-as-long-as-names-may-be-" + "x" * 25
    api.on("GET", "/templates", [template(), template(name=long)])
    text = ESCAPE.sub("", in_terminal(api.url, "tpl", "list", width=80).text)
    heading, *rows = text.splitlines()
    assert heading.split()[:5] == ["NAME", "GEN", "SIZE", "STATE", "IMPORTED"]
    assert max(len(line.rstrip()) for line in rows) <= 80
    name = "".join(row.split()[0] for row in rows[1:] if not row.startswith((" ", "No room")))
    assert name.startswith(long)


def test_colour_is_for_terminals_and_not_where_no_color_is_set(api: FakeApi):
    api.on("GET", "/templates", [template()])
    assert "\x1b[1;31mblocked" in in_terminal(api.url, "tpl", "list").text
    plain = in_terminal(api.url, "tpl", "list", NO_COLOR="1").text
    assert "blocked" in plain
    assert "31m" not in plain


def test_an_old_locale_gets_escapes_and_no_traceback(api: FakeApi):
    api.on("GET", "/templates", [template(name="a✓")])
    seen = in_terminal(
        api.url, "tpl", "list", "-H", "-o", "name", PYTHONIOENCODING="latin-1", PYTHONUTF8="0"
    )
    assert (seen.status, seen.text) == (0, "a\\u2713\n")


def test_json_is_the_apis_document_and_harmless(api: FakeApi):
    rows = [template(importedBy="Zoë\x7f\x9b")]
    api.on("GET", "/templates", rows)
    done = run(api.url, "tpl", "list", "--json")
    assert json.loads(done.stdout) == rows
    assert done.stdout.isascii()
    assert "\x7f" not in done.stdout
