"""Events read from the log are made by compiled readers: as good as made by hand, as strict."""

import dataclasses
import json
import uuid

import pytest

from templates_app import store
from templates_app.codec import PayloadInvalid, decode, encode
from templates_app.events import Check, Meta, Recorded, SandboxRefused
from tests import house

EVENTS = [
    house.imported("web"),
    house.failed("web"),
    house.launched("s1", house.imported("web")),
    house.refused(house.imported("web")),
]
META = Meta(actor="olivia", source="api", request_id="r1", node="jail1")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_what_is_read_is_as_if_made_by_its_class(event):
    read = decode(type(event), json.loads(json.dumps(event.to_json())))
    assert type(read) is type(event)
    assert read == event
    assert repr(read) == repr(event)
    assert dataclasses.replace(read) == read
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.template = "another"
    with pytest.raises((AttributeError, TypeError)):
        read.invented = "another"


def test_what_the_log_returns_is_frozen_too(any_database):
    store.append(EVENTS, meta=META)
    for one in store.read():
        assert type(one) is Recorded
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.position = 7
        assert one.event_id == uuid.UUID(str(one.event_id))
        assert hash(one.event_id) == hash(uuid.UUID(one.event_id.hex))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"generation": "3"}, "expected int, found str"),
        ({"generation": True}, "expected int, found bool"),
        ({"generation": None}, "expected int, found NoneType"),
        ({"code": 7}, "expected str, found int"),
        ({"manifestDigest": 7}, "expected str, found int"),
        ({"checks": {}}, "expected a list, found dict"),
        ({"checks": ["signed"]}, "expected an object, found str"),
        ({"checks": [{"name": "signed"}]}, "Check: unknown keys .*missing keys"),
        ({"surprise": 1}, "unknown keys .'surprise'."),
    ],
)
def test_a_payload_that_does_not_fit_says_why(change, complaint):
    data = {**house.refused(house.imported("web")).to_json(), **change}
    with pytest.raises(PayloadInvalid, match=complaint):
        decode(SandboxRefused, data)


@pytest.mark.parametrize("data", [[], "text", 7, None])
def test_a_payload_that_is_no_object_is_refused(data):
    with pytest.raises(PayloadInvalid, match="expected an object"):
        decode(SandboxRefused, data)


def test_a_missing_key_is_named_and_an_optional_one_may_be_missing():
    check = Check(name="signed", passed=True, reason="It is.")
    data = encode(check)
    del data["code"], data["nextStep"]
    assert decode(Check, data) == check
    del data["passed"]
    with pytest.raises(PayloadInvalid, match="missing keys .'passed'."):
        decode(Check, data)
