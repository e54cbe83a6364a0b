"""Archives that readers disagree about, as layers, through the engine and onto the disk."""

import io
import os

import pytest

from templates_app.errors import TreeRefused
from templates_app.sources.native.grammar import RULES
from templates_app.trust import tree
from tests.corpus.streams import STREAMS
from tests.native.archives import END, file
from tests.native.fetched import Held, context, fetch, image

#: One of each rule, after a layer that is sound, so that something is there to be left behind.
REFUSED = {stream.expected: stream for stream in STREAMS if isinstance(stream.expected, str)}


@pytest.fixture
def into(tmp_path):
    place = tmp_path / "pool" / "tree"
    place.mkdir(parents=True)
    return place


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_layer_is_refused_by_its_rule(rule, into, tmp_path):
    held = Held()
    stream = REFUSED[rule]
    resolved = image(held, [file(b"sound", b"x") + END, stream.data])
    where = context(tmp_path / "state", file_bytes=2**33)
    with pytest.raises(TreeRefused) as refusal:
        fetch(held, resolved, into, where)
    assert refusal.value.extra["rule"] == rule
    assert refusal.value.extra["path"]
    assert {path.name for path in into.iterdir()} <= {"sound", "f"}
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "state"}
    assert os.listdir(tmp_path / "pool") == ["tree"]  # noqa: PTH208 - names


def test_what_is_taken_lies_on_the_disk(into, tmp_path):
    """Each archive is a layer of one image."""
    taken = [one for one in STREAMS if not isinstance(one.expected, str)]
    held = Held()
    receipt = fetch(
        held, image(held, [one.data for one in taken]), into, context(tmp_path / "state")
    )
    text = io.BytesIO()
    tree.scan(into, limit_entries=1000, into=text)
    assert text.getvalue() == receipt.manifest
    top = os.fsencode(into)
    for stream in taken:
        for name, body in stream.expected:
            if body and name != b"f":
                with open(os.path.join(top, name), "rb") as there:  # noqa: PTH118, PTH123 - bytes
                    assert there.read() == body
    after_the_end = [one for one in receipt.findings if "after the end of its archive" in one]
    assert len(after_the_end) == 2
