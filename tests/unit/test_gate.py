"""The gate: each check on its own, which failure decides, and what each mode does with it."""

from __future__ import annotations

import base64
import dataclasses
import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.datasets.base import Snapshot
from templates_app.errors import GATE_CODES
from templates_app.gate import Decision, OpenFinding, Policy, StoredSignature, decide
from templates_app.gate.base import failed
from templates_app.lifecycle import GenerationState
from templates_app.names import NameGlob
from templates_app.trust import signify, statement
from templates_app.trust.keyring import KnownKey, Revocation

TREE = "sha256:" + "a" * 64
TEXT = statement.build_adopted(template="web", tree_digest=TREE)
GENERATION = GenerationState(
    number=3,
    dataset="zroot/jails/coppice/web-g3-0a0b0c0d",
    origin="zroot/jails/coppice/web-g3-0a0b0c0d@base",
    snapshot_guid="1234567890123456789",
    tree_digest=TREE,
    statement=TEXT.decode(),
    statement_digest=statement.digest(TEXT),
    manifest_digest="sha256:" + "b" * 64,
    adopted=False,
)
LIVE = Snapshot(name=GENERATION.origin, guid=GENERATION.snapshot_guid, size_bytes=7)
RELEASE, OTHER = (
    signify.SecretKey.load(signify.generate(name).secret) for name in ("release", "other")
)
NAMES = ["dataset_present", "snapshot_unchanged", "statement_matches", "no_blocking_finding"]
KEYS = ["key_trusted", "key_not_revoked", "key_in_dates", "key_in_scope"]
ALL = [*NAMES, "signed", "signature_stands", *KEYS, "signature_valid"]
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SIGNED_AT = 7  # a position


def trusted(key: signify.SecretKey = RELEASE, label: str = "release", **limits: Any) -> KnownKey:
    return KnownKey(label=label, public_key=key.public_key, **{"trusted": True, **limits})


def revoked(since: int, reason: str = "compromised", **limits: Any) -> KnownKey:
    return trusted(revocation=Revocation(reason=reason, since=since), **limits)


def signature(
    key: signify.SecretKey = RELEASE, text: bytes = TEXT, **changes: Any
) -> StoredSignature:
    stored = StoredSignature(
        key_id=key.public_key.key_id,
        key_label="release",
        public_key=key.public_key.text,
        signature=key.sign(text),
        position=SIGNED_AT,
        signed_by="sigrid",
    )
    return dataclasses.replace(stored, **changes)


def flipped(stored: StoredSignature) -> StoredSignature:
    comment, encoded, _ = stored.signature.split("\n")
    raw = bytearray(base64.b64decode(encoded))
    raw[-1] ^= 1
    return dataclasses.replace(stored, signature=f"{comment}\n{base64.b64encode(raw).decode()}\n")


def judge(**changes: Any) -> Decision:
    facts: dict[str, Any] = {
        "name": "web",
        "generation": GENERATION,
        "live": LIVE,
        "signatures": [signature()],
        "keys": [trusted()],
        "noticed": [],
        "importer": "olivia",
        "now": NOW,
    }
    policy = Policy(mode=changes.pop("mode", "on"), **changes.pop("policy", {}))
    return decide(policy=policy, **{**facts, **changes})


def generation(**changes: Any) -> GenerationState:
    return dataclasses.replace(GENERATION, **changes)


def other_statement(**changes: Any) -> GenerationState:
    text = statement.build_adopted(**{"template": "web", "tree_digest": TREE, **changes})
    return generation(statement=text.decode(), statement_digest=statement.digest(text))


def test_all_checks_hold_for_a_signed_template():
    good = judge()
    assert (good.allowed, good.signed, good.code) == (True, True, None)
    assert [check.name for check in good.checks] == ALL
    assert all(check.passed and check.code is None for check in good.checks)
    assert (good.key_id, good.key_label) == (RELEASE.public_key.key_id, "release")


def found(code: str = "tree_changed") -> OpenFinding:
    return OpenFinding(code=code, subject="a dataset", detail="It differs.", position=7)


#: What is wrong -> (the check that finds it, its code).
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "the snapshot is gone": ({"live": None}, "dataset_present", "template_missing"),
    "the snapshot was made anew": (
        {"live": dataclasses.replace(LIVE, guid="2")},
        "snapshot_unchanged",
        "statement_stale",
    ),
    "the statement was changed": (
        {"generation": generation(statement=TEXT.decode() + " ")},
        "statement_matches",
        "statement_stale",
    ),
    "the statement's digest was changed": (
        {"generation": generation(statement_digest="sha256:" + "0" * 64)},
        "statement_matches",
        "statement_stale",
    ),
    "the digest is not even text of ours": (
        {"generation": generation(statement_digest="ü")},
        "statement_matches",
        "statement_stale",
    ),
    "the statement is about another template": (
        {"generation": other_statement(template="db")},
        "statement_matches",
        "statement_stale",
    ),
    "the statement is about another tree": (
        {"generation": other_statement(tree_digest="sha256:" + "c" * 64)},
        "statement_matches",
        "statement_stale",
    ),
    "the statement is no statement": (
        {"generation": generation(statement="{}", statement_digest=statement.digest(b"{}"))},
        "statement_matches",
        "statement_stale",
    ),
    "its files are not what they were": (
        {"noticed": [found("alias_stale"), found()]},
        "no_blocking_finding",
        "finding_open",
    ),
    "nobody has signed": ({"signatures": []}, "signed", "template_unsigned"),
    "no key is trusted": ({"keys": []}, "key_trusted", "key_untrusted"),
    "another key is trusted": ({"keys": [trusted(OTHER)]}, "key_trusted", "key_untrusted"),
    "another key with the same number is trusted": (
        {"keys": [trusted(signify.SecretKey(RELEASE.keynum, OTHER.seed, b"x"))]},
        "key_trusted",
        "key_untrusted",
    ),
    "the signature was withdrawn": (
        {"signatures": [signature(withdrawn=9)]},
        "signature_stands",
        "signature_withdrawn",
    ),
    "the importer signed it himself": (
        {"policy": {"two_persons": True}, "importer": "sigrid"},
        "second_person",
        "second_person_missing",
    ),
    "one key is too few": (
        {"policy": {"signatures": 2}},
        "enough_signatures",
        "too_few_signatures",
    ),
    "of two signatures one is the importer's": (
        {
            "signatures": [signature(), signature(OTHER, signed_by="olivia")],
            "keys": [trusted(), trusted(OTHER, "other")],
            "policy": {"signatures": 2, "two_persons": True},
        },
        "enough_signatures",
        "too_few_signatures",
    ),
    "of two signatures one does not verify": (
        {
            "signatures": [signature(), flipped(signature(OTHER))],
            "keys": [trusted(), trusted(OTHER, "other")],
            "policy": {"signatures": 2},
        },
        "enough_signatures",
        "too_few_signatures",
    ),
    "no event trusts the key any more, and it is revoked": (
        {"keys": [revoked(1, trusted=False)]},
        "key_trusted",
        "key_revoked",
    ),
    "the key is compromised since before it signed": (
        {"keys": [revoked(SIGNED_AT)]},
        "key_not_revoked",
        "key_revoked",
    ),
    "the key was superseded before it signed": (
        {"keys": [revoked(SIGNED_AT - 1, "superseded")]},
        "key_not_revoked",
        "key_revoked",
    ),
    "the key's time has not come": (
        {"keys": [trusted(not_before=NOW + DAY)]},
        "key_in_dates",
        "key_outside_dates",
    ),
    "the key's time is over": (
        {"keys": [trusted(not_before=NOW - DAY, not_after=NOW)]},
        "key_in_dates",
        "key_outside_dates",
    ),
    "the key is for others": (
        {"keys": [trusted(scope=(NameGlob("we"), NameGlob("web-*")))]},
        "key_in_scope",
        "key_outside_scope",
    ),
    "one bit of the signature is flipped": (
        {"signatures": [flipped(signature())]},
        "signature_valid",
        "signature_invalid",
    ),
    "the signature is over another statement": (
        {"signatures": [signature(text=TEXT.replace(b"web", b"wec"))]},
        "signature_valid",
        "signature_invalid",
    ),
    "the signature is by another key than the row says": (
        {"signatures": [signature(signature=OTHER.sign(TEXT))]},
        "signature_valid",
        "signature_invalid",
    ),
    "the signature is no signature": (
        {"signatures": [signature(signature="")]},
        "signature_valid",
        "signature_invalid",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_wrong_is_found_by_its_check_with_its_code_and_a_next_step(what: str):
    changes, name, code = WRONG[what]
    refused = judge(**changes)
    assert not refused.allowed and not refused.signed
    assert refused.code == code
    first = next(check for check in refused.checks if not check.passed)
    assert (first.name, first.code) == (name, code)
    assert (refused.key_id, refused.key_label) == (None, None) or name in NAMES
    for check in refused.checks:
        assert check.reason.endswith("."), check
        assert (check.code is None) is check.passed
        assert bool(check.next_step) is not check.passed


def test_every_code_of_a_refusal_is_reached_here():
    assert {code for _, _, code in WRONG.values()} == set(GATE_CODES)


@pytest.mark.parametrize(
    "key",
    [
        revoked(SIGNED_AT + 1),
        revoked(SIGNED_AT + 1, "superseded"),
        trusted(not_before=NOW, not_after=NOW + DAY),
        trusted(scope=(NameGlob("db"), NameGlob("w?b"))),
    ],
)
def test_what_was_signed_before_a_revocation_and_within_the_limits_counts(key: KnownKey):
    assert judge(keys=[key]).allowed


def test_a_policy_is_satisfied_by_other_people_and_by_different_keys():
    two = [signature(), signature(OTHER, signed_by="simon")]
    keys = [trusted(), trusted(OTHER, "other")]
    policy = {"signatures": 2, "two_persons": True}
    decision = judge(signatures=two, keys=keys, policy=policy)
    assert decision.allowed
    assert [check.name for check in decision.checks] == [*ALL, "second_person", "enough_signatures"]


def test_signatures_that_fail_at_different_checks_are_named_where_they_fail():
    """The gate says how far the best of them came; the reasons of the others are not lost."""
    keys = [revoked(1), trusted(OTHER, "other", not_after=NOW - DAY)]
    decision = judge(signatures=[signature(), signature(OTHER, key_label="other")], keys=keys)
    assert decision.code == "key_outside_dates"
    reasons = {check.name: check.reason for check in decision.checks}
    assert reasons["key_not_revoked"].startswith(f"other ({OTHER.public_key.key_id})")
    assert "release" in reasons["key_not_revoked"]


def test_a_code_that_is_not_documented_cannot_be_given():
    with pytest.raises(ValueError, match="not a code"):
        failed("signed", "no_such_code", "x", "y")


@pytest.mark.parametrize("mode", ["on", "warn", "off"])
@pytest.mark.parametrize("what", [None, *WRONG])
def test_what_each_mode_does(mode: str, what: str | None):
    decision = judge(**(WRONG[what][0] if what else {}), mode=mode)
    assert decision.mode == mode
    assert decision.signed is (what is None)
    if what is None:
        assert decision.allowed
    elif mode == "on" or what == "the snapshot is gone":  # nothing can be cloned from nothing
        assert not decision.allowed
    else:
        assert decision.allowed and decision.failed_codes  # launched, and recorded as unsigned


def test_a_gate_that_is_on_is_on_for_every_name_that_is_not_exempt():
    def mode(exempt: str, gate: str = "on") -> tuple[str, str | None, bool]:
        decision = judge(signatures=[], policy={"exempt": (NameGlob.parse(exempt),)}, mode=gate)
        return decision.mode, decision.exempt, decision.allowed

    assert mode("we?") == ("warn", "we?", True)
    assert mode("w*") == ("warn", "w*", True)
    assert {mode(other) for other in ("we", "eb", "web-*", "?")} == {("on", None, False)}
    assert mode("*", "off") == ("off", None, True)
    assert not judge(live=None, policy={"exempt": (NameGlob.parse("*"),)}).allowed


def test_the_first_failed_check_decides_and_all_are_shown():
    worst = judge(live=None, signatures=[], generation=generation(statement="x"))
    assert worst.code == "template_missing"
    assert worst.failed_codes == (
        "template_missing",
        "statement_stale",
        "statement_stale",
        "template_unsigned",
    )
    assert [check.name for check in worst.checks] == [*NAMES, "signed"]


def test_of_several_signatures_one_good_one_is_enough():
    bad, good = flipped(signature()), signature(OTHER, key_label="other")
    keys = [trusted(), trusted(OTHER, "other")]
    for signatures in ([bad, good], [good, bad]):
        decision = judge(signatures=signatures, keys=keys)
        assert decision.allowed and decision.key_label == "other"
        assert "other" in decision.checks[6].reason


def test_the_label_is_the_trusted_files_not_the_rows():
    decision = judge(keys=[trusted(label="renamed")])
    assert decision.allowed and decision.key_label == "renamed"


def test_reasons_name_what_was_found():
    assert "guid 2" in judge(live=dataclasses.replace(LIVE, guid="2")).checks[1].reason
    assert "1234567890123456789" in judge(live=None).checks[1].reason
    untrusted = judge(keys=[]).checks[6]
    assert f"release ({RELEASE.public_key.key_id})" in untrusted.reason
    assert judge(signatures=[]).checks[4].next_step == "Sign it: coppice tpl sign web"
    noticed = judge(noticed=[found(), found("guid_changed")]).checks[3]
    assert "tree_changed (a dataset, found by event 7): It differs." in noticed.reason
    assert "1 more: coppice tpl findings web" in noticed.reason
    assert "import-oci web REF --force" in noticed.next_step


def test_the_decision_on_the_wire_has_these_keys():
    shown = judge(signatures=[]).to_json()
    assert list(shown) == [
        "template",
        "generation",
        "mode",
        "exempt",
        "allowed",
        "signed",
        "keyId",
        "keyLabel",
        "statementDigest",
        "treeDigest",
        "code",
        "checks",
    ]
    assert (shown["template"], shown["generation"]) == ("web", 3)
    assert (shown["statementDigest"], shown["treeDigest"]) == (statement.digest(TEXT), TREE)
    assert {tuple(check) for check in shown["checks"]} == {
        ("name", "passed", "reason", "code", "nextStep")
    }


@given(
    live=st.sampled_from([LIVE, None, dataclasses.replace(LIVE, guid="2")]),
    generation=st.sampled_from(
        [GENERATION, generation(statement=""), other_statement(template="db")]
    ),
    signatures=st.lists(
        st.sampled_from([signature(), flipped(signature()), signature(OTHER)]), max_size=3
    ),
    keys=st.lists(st.sampled_from([trusted(), trusted(OTHER, "other"), revoked(1)]), max_size=2),
    noticed=st.lists(st.sampled_from([found(), found("alias_stale")]), max_size=2),
    mode=st.sampled_from(["on", "warn", "off"]),
)
@settings(deadline=None)
def test_nothing_is_signed_but_what_every_check_says(
    live, generation, signatures, keys, noticed, mode
):
    """The whole rule, said in one line, against the checks one by one."""
    decision = decide(
        name="web",
        generation=generation,
        live=live,
        signatures=signatures,
        keys=keys,
        noticed=noticed,
        importer="olivia",
        policy=Policy(mode=mode),
        now=NOW,
    )
    # Of two entries for one key the last counts: the services give one.
    known = {key.public_key.text: key for key in keys}
    count = {text for text, key in known.items() if key.revocation is None}
    verifies = any(
        one.public_key in count and one in (signature(), signature(OTHER)) for one in signatures
    )
    stopped = found() in noticed
    good = live == LIVE and generation == GENERATION and not stopped
    assert decision.signed == (good and verifies)
    assert decision.allowed == (decision.signed or (mode != "on" and live is not None))
    assert (decision.code is None) == decision.signed
