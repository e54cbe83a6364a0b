"""The log over HTTP: what an auditor gets suffices to check it without the server."""

from __future__ import annotations

import base64
import json

import pytest
from django.conf import settings
from django.db import connection

from templates_app import store, triggers
from templates_app.events import Meta, SandboxDestroyed
from templates_app.services import ledger
from templates_app.trust import checkpoints, log, signify
from tests import rfc9162
from tests.callers import Api

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


@pytest.fixture
def auditor(any_api: Api):
    for number in range(6):
        event = SandboxDestroyed(sandbox=f"s{number}", template="web", dataset="zroot/s")
        store.append(event, meta=META)
    ledger.write_checkpoint()
    return any_api.as_("auditor")


def public_key():
    return signify.PublicKey.parse((settings.COPPICE_STATE_DIR / "log" / "log.pub").read_bytes())


def entries(client, query=""):
    lines = client.get(f"/log/entries{query}").content.decode().splitlines()
    return [json.loads(line) for line in lines]


def test_the_tree_is_made_anew_from_what_is_served(auditor):
    answer = auditor.get("/log/checkpoint")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    checkpoint = checkpoints.verify(answer.content, public_key())
    leaves = []
    for line in entries(auditor):
        leaves.append(log.leaf_hash(log.leaf_data(line)))
        assert leaves[-1].hex() == line["leafHash"]
    assert (checkpoint.size, checkpoint.root) == (6, log.root(leaves))


def test_entries_come_from_a_position_on(auditor):
    assert [one["position"] for one in entries(auditor, "?start=3&limit=2")] == [3, 4]
    assert entries(auditor, "?start=7") == []
    assert entries(auditor, "?limit=0") == []


def test_entries_end_where_is_said_or_where_a_page_does(auditor):
    assert [one["position"] for one in entries(auditor, "?start=2&end=4")] == [2, 3, 4]
    assert [one["position"] for one in entries(auditor, "?start=2&end=9&limit=2")] == [2, 3]
    assert entries(auditor, "?start=4&end=3") == entries(auditor, "?end=0") == []
    assert auditor.get("/log/entries?end=x").status_code == 400


@pytest.mark.parametrize("position", [1, 4, 6])
def test_an_event_is_proven_to_be_in_the_log(auditor, position):
    answer = auditor.get(f"/log/proof/inclusion?position={position}")
    proof = checkpoints.Proof.parse(answer.content)
    checkpoint = checkpoints.verify(proof.note, public_key())
    leaf = bytes.fromhex(store.at(position).leaf_hash)
    assert proof.index == position - 1
    log.check_inclusion(leaf, proof.index, checkpoint.size, checkpoint.root, proof.hashes)


@pytest.mark.parametrize(("first", "second"), [(3, 6), (4, 5), (0, 6), (6, 6)])
def test_the_log_is_proven_to_have_grown_only(auditor, first, second):
    said = auditor.get(f"/log/proof/consistency?first={first}&second={second}").json()
    old, new, *proof = (
        base64.b64decode(one) for one in (said["firstRoot"], said["secondRoot"], *said["hashes"])
    )
    log.check_consistency(first, second, old, new, proof)
    leaves = [bytes.fromhex(one.leaf_hash) for one in store.read()]
    assert (old, new) == (log.root(leaves[:first]), log.root(leaves[:second]))


def test_another_verifier_accepts_proofs_of_a_log_of_ten_thousand_events(any_api: Api):
    size = 10_000
    for number in range(0, size, 500):
        events = [
            SandboxDestroyed(sandbox=f"s{one}", template="web", dataset="zroot/s")
            for one in range(number, number + 500)
        ]
        store.append(events, meta=META)
    ledger.write_checkpoint()
    client = any_api.as_("auditor")
    root = checkpoints.verify(client.get("/log/checkpoint").content, public_key()).root
    for position in (1, 2, 4096, 4097, 7777, size):
        answer = client.get(f"/log/proof/inclusion?position={position}")
        hashes = checkpoints.Proof.parse(answer.content).hashes
        # The leaf is that of what is served, as an auditor has it.
        (line,) = entries(client, f"?start={position}&limit=1")
        leaf = log.leaf_hash(log.leaf_data(line))
        assert rfc9162.is_included(leaf, position - 1, size, root, hashes)
        assert not rfc9162.is_included(leaf, position % size, size, root, hashes)
    for first in (1, 4096, 6543, size - 1):
        said = client.get(f"/log/proof/consistency?first={first}&second={size}").json()
        old, new, *hashes = (
            base64.b64decode(one)
            for one in (said["firstRoot"], said["secondRoot"], *said["hashes"])
        )
        assert new == root
        assert rfc9162.is_consistent(first, size, old, new, hashes)
        assert not rfc9162.is_consistent(first, size, new, old, hashes)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("inclusion?position=0", 404),
        ("inclusion?position=7", 404),
        ("inclusion", 404),
        ("inclusion?position=x", 400),
        ("consistency?first=4&second=3", 400),
        ("consistency?first=1&second=7", 404),
    ],
)
def test_what_cannot_be_proven_is_said(auditor, address, status):
    assert auditor.get(f"/log/proof/{address}").status_code == status


def test_there_is_no_proof_by_rows_that_were_changed(auditor):
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE templates_app_event SET data = '{}' WHERE position = 2")
    answer = auditor.get("/log/proof/inclusion?position=5")
    assert (answer.status_code, answer.json()["code"]) == (409, "log_inconsistent")


def test_a_log_without_a_checkpoint_says_so(api: Api):
    answer = api.as_("auditor").get("/log/checkpoint")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
