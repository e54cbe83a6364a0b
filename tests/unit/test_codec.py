"""Dataclasses and the JSON of the log: one way each, and nothing guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.codec import MAX_INTEGER, PayloadInvalid, camel, decode, encode


@dataclass(frozen=True, kw_only=True)
class Inner:
    word: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    size_bytes: int
    is_there: bool
    maybe: str | None
    words: tuple[str, ...]
    inner: Inner
    inners: tuple[Inner, ...]
    milliseconds: dict[str, int]
    late_comer: int = 7


GOOD = Sample(
    size_bytes=1,
    is_there=True,
    maybe=None,
    words=("a", "ü"),
    inner=Inner(word="x"),
    inners=(Inner(word="y", note="z"),),
    milliseconds={"pull": 5},
)
SHOWN = {
    "sizeBytes": 1,
    "isThere": True,
    "maybe": None,
    "words": ["a", "ü"],
    "inner": {"word": "x", "note": None},
    "inners": [{"word": "y", "note": "z"}],
    "milliseconds": {"pull": 5},
    "lateComer": 7,
}


def test_it_is_written_in_camel_case_and_read_back():
    assert encode(GOOD) == SHOWN
    assert decode(Sample, SHOWN) == GOOD
    assert decode(Sample, json.loads(json.dumps(SHOWN))) == GOOD


@pytest.mark.parametrize(
    ("snake", "shown"),
    [("size_bytes", "sizeBytes"), ("name", "name"), ("a_b_c", "aBC"), ("sha256", "sha256")],
)
def test_names_on_the_wire(snake: str, shown: str):
    assert camel(snake) == shown


def test_a_field_with_a_default_may_be_absent_and_no_other():
    assert decode(Sample, {k: v for k, v in SHOWN.items() if k != "lateComer"}) == GOOD
    for key in SHOWN.keys() - {"lateComer"}:
        with pytest.raises(PayloadInvalid, match=key):
            decode(Sample, {k: v for k, v in SHOWN.items() if k != key})


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"size_bytes": 1},
        {"sizeBytes": "1"},
        {"sizeBytes": 1.0},
        {"sizeBytes": True},  # True is an int in Python, and no size
        {"sizeBytes": None},
        {"isThere": 1},
        {"isThere": None},
        {"maybe": 7},
        {"words": "ab"},
        {"words": [1]},
        {"words": None},
        {"words": {"a": 1}},
        {"inner": None},
        {"inner": []},
        {"inner": {}},
        {"inner": {"word": "x", "more": 1}},
        {"inners": [None]},
        {"milliseconds": []},
    ],
)
def test_another_shape_is_not_taken(change: dict):
    with pytest.raises(PayloadInvalid):
        decode(Sample, {**SHOWN, **change})


@pytest.mark.parametrize(
    "value",
    [
        {"size_bytes": MAX_INTEGER + 1},
        {"size_bytes": -MAX_INTEGER - 1},
        {"size_bytes": 1.5},
        {"maybe": b"bytes"},
        {"words": {"a"}},
        {"inner": Inner},
        {"milliseconds": {1: 2}},
        {"milliseconds": {"ü": 2}},
        {"milliseconds": {"": 2}},
        {"milliseconds": {"a b": 2}},
        {"milliseconds": {"x" * 129: 2}},
        {"milliseconds": {"a": 2**60}},
    ],
)
def test_what_json_readers_could_get_wrong_is_not_written(value: dict):
    with pytest.raises(PayloadInvalid):
        encode(Sample(**{**GOOD.__dict__, **value}))


def test_the_ends_of_what_is_written():
    for size in (MAX_INTEGER, -MAX_INTEGER, 0):
        sample = Sample(**{**GOOD.__dict__, "size_bytes": size})
        assert decode(Sample, json.loads(json.dumps(encode(sample)))) == sample


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SHOWN, "other"]) | st.text(max_size=5), JSONS))
@settings(deadline=None)
def test_arbitrary_json_is_read_or_refused_by_name(change: dict):
    try:
        read = decode(Sample, {**SHOWN, **change})
    except PayloadInvalid:
        return
    assert isinstance(read.size_bytes, int) and not isinstance(read.size_bytes, bool)
    assert isinstance(read.words, tuple) and isinstance(read.inner, Inner)
