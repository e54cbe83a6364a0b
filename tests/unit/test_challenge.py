"""WWW-Authenticate as registries write it, and as nobody should (rule D5; RFC 9110, 11.6.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.sources.native.challenge import parse


def read(*values):
    return [(one.scheme, dict(one.parameters)) for one in parse(values)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # Docker Hub, docker-registry, Harbor.
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
            'scope="repository:library/alpine:pull"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/alpine:pull",
                    },
                )
            ],
        ),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        # Several in one header: commas part parameters and challenges alike.
        (
            'Basic realm="a, b", Bearer realm="https://x/t", service="s"',
            [("basic", {"realm": "a, b"}), ("bearer", {"realm": "https://x/t", "service": "s"})],
        ),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            'Negotiate YII+/a==, Bearer realm="x"',
            [("negotiate", {}), ("bearer", {"realm": "x"})],
        ),
        # Case does not count, white space may stand around `=`, empty elements are skipped.
        ('bEARER   Realm = "x" ,, SERVICE= "s" ,', [("bearer", {"realm": "x", "service": "s"})]),
        ('\t, Bearer realm="x"', [("bearer", {"realm": "x"})]),
        # Quotation marks within, a comma in a scope, and an address without quotation marks.
        (r'Basic realm="a \"b\" \\c"', [("basic", {"realm": r'a "b" \c'})]),
        (
            'Bearer realm="x",scope="repository:a:pull,push repository:b:pull"',
            [("bearer", {"realm": "x", "scope": "repository:a:pull,push repository:b:pull"})],
        ),
        ("Bearer realm=https://x/,a=b", [("bearer", {"realm": "https://x/", "a": "b"})]),
        # Of two equal ones the first.
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer error="x",realm=""', [("bearer", {"error": "x", "realm": ""})]),
        ("Basic", [("basic", {})]),
    ],
)
def test_a_header(header, expected):
    assert read(header) == expected


def test_several_headers_are_one_list():
    assert [scheme for scheme, _ in read('Basic realm="x"', 'Bearer realm="y"')] == [
        "basic",
        "bearer",
    ]


@pytest.mark.parametrize("header", ["", ",", "=", '"', 'realm="x"', "Bearer=x", "\x00", "ä"])
def test_what_is_no_challenge(header):
    assert read(header) == []


@pytest.mark.parametrize("header", ['Bearer realm="x', 'Bearer realm="x\\"', 'Bearer realm="x"y'])
def test_a_parameter_that_does_not_end_is_none(header):
    assert read(header)[0] == ("bearer", {})


def test_a_long_header_is_cut_off():
    assert read("," * 20_000 + "Bearer") == []


@given(st.text(max_size=200))
def test_no_text_crashes_it(text):
    for scheme, parameters in read(text):
        assert scheme == scheme.lower() and all(name == name.lower() for name in parameters)


_words = st.text("abcdefgh-._", min_size=1, max_size=8)


_parameters = st.dictionaries(_words, st.text(st.characters(codec="ascii")), max_size=3)


@given(st.lists(st.tuples(_words, _parameters), max_size=3))
def test_what_was_written_is_read(challenges):
    def quoted(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        " ".join([scheme, ", ".join(f"{name}={quoted(value)}" for name, value in said.items())])
        for scheme, said in challenges
    )
    # A dot matches no line end, and a header has none.
    if "\n" not in text:
        assert read(text) == challenges
