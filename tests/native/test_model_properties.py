"""The model, a slow reading of the rules, and what the operations do to a disk: always the same.

``make soak`` is one of these tests too, at it for SOAK_SECONDS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.errors import TreeRefused
from templates_app.sources.native import model
from tests.corpus.members import Layer, Member
from tests.native.applied import apply
from tests.native.flattened import Refused, flatten

# Few names, so that entries meet: one place as file, directory and link, hidden and made again.
NAMES = (b"a", b"b", b"c", b"a.b", b"dev")
LINKS_TO = (b"/", b".", b"..", b"../..", b"a/..", b"./b/../a", b"/c", b"nowhere")
RESERVED = (b".wh..wh..opq",) * 6 + (b".wh..wh.aufs", b".wh.", b".wh...")
SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
SHUFFLED = st.randoms(use_true_random=False)


def _path(chance: Random) -> bytes:
    return b"/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 3)))


def _odd(chance: Random) -> bytes:
    before = chance.choice((b"./", b"/", b"../", b"a/../", b"b//"))
    return (before if chance.random() < 0.1 else b"") + _path(chance)


def _marker(chance: Random) -> Member:
    hides_one = chance.random() < 0.6
    name = b".wh." + chance.choice(NAMES) if hides_one else chance.choice(RESERVED)
    above = b"" if chance.random() < 0.3 else _path(chance) + b"/"
    return Member(b"0", above + name)


def _member(chance: Random, kinds: str, seen: list[bytes]) -> Member:
    kind = chance.choice(kinds)
    if kind == "w":
        return _marker(chance)
    name, target = _odd(chance), b""
    if kind == "1":  # mostly to something that may be there
        target = chance.choice(seen) if seen and chance.random() < 0.9 else _odd(chance)
    elif kind == "2":
        target = chance.choice(LINKS_TO) if chance.random() < 0.4 else _odd(chance)
    elif kind == "5" and chance.random() < 0.05:
        name = b"./"
    if kind in "02":
        seen.append(name)
    return Member(
        kind.encode(),
        name,
        content=chance.choice((b"", b"1", b"2")) if kind == "0" else b"",
        target=target,
        mode=chance.choice((0o644, 0o755, 0o4711)),
        uid=chance.choice((0, 7)),
        xattrs=chance.choice(((), (), ((b"user.x", b"1"),))),
    )


def stack(chance: Random, kinds: str = "0000555122w36ww") -> list[Layer]:
    """Up to four random layers; ``kinds`` are tar's types and ``w`` for whiteouts."""
    layers, seen = [], []
    for _ in range(chance.randint(1, 4)):
        layer: dict[bytes, Member] = {}
        for _ in range(chance.randint(0, 8)):
            member = _member(chance, kinds, seen)
            layer.setdefault(member.name, member)
        layers.append(tuple(layer.values()))
    return layers


def outcome(layers: Sequence[Layer], *, restored: bool = False) -> bytes | str:
    """The manifest, or the rule of the refusal."""
    try:
        return apply(layers, restored=restored).manifest
    except TreeRefused as error:
        return str(error.extra["rule"])


def expected(layers: Sequence[Layer]) -> bytes | str:
    try:
        return flatten(layers)
    except Refused as error:
        return str(error)


def same(layers: Sequence[Layer]) -> bool:
    """By the rules, at once, and from what was kept of each layer below. True if it is a tree."""
    at_once = outcome(layers)
    assert at_once == expected(layers)
    assert at_once == outcome(layers, restored=True)
    return isinstance(at_once, bytes)


@settings(max_examples=200, deadline=None)
@given(SHUFFLED)
def test_the_model_makes_what_the_rules_say(chance: Random):
    same(stack(chance))


def test_the_model_makes_what_the_rules_say_many_times():
    """Without Hypothesis's minimal examples, but 20 times as fast; for SOAK_SECONDS others."""
    first = int.from_bytes(os.urandom(6), "big") if SECONDS else 0
    deadline = time.monotonic() + SECONDS
    done = trees = 0
    while done < 4000 or time.monotonic() < deadline:
        seed = first + done
        layers = stack(Random(seed))
        try:
            trees += same(layers)
        except AssertionError:
            raise AssertionError(f"seed {seed}: {layers}") from None
        done += 1
    assert trees > done / 4, "too many of the stacks are refused to say much"


def test_what_is_cached_for_speed_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    stacks = [stack(Random(seed)) for seed in range(500)]
    outcomes = [outcome(layers) for layers in stacks]
    monkeypatch.setattr(model, "_MAX_CACHED", 1)
    assert [outcome(layers) for layers in stacks] == outcomes


@settings(max_examples=200, deadline=None)
@given(SHUFFLED)
def test_whiteouts_do_the_same_wherever_they_stand_in_their_layer(chance: Random):
    def moved(layer: Layer) -> Layer:
        others = [one for one in layer if b".wh." not in one.name]
        for marker in (one for one in layer if b".wh." in one.name):
            others.insert(chance.randint(0, len(others)), marker)
        return tuple(others)

    # No links: what one leads to may be another thing before and after an entry.
    layers = stack(chance, kinds="00555www")
    one, other = outcome(layers), outcome([moved(layer) for layer in layers])
    # Which of two refusals comes first is a matter of the order.
    assert one == other or (isinstance(one, str) and isinstance(other, str))
