"""The gate: each check on its own, which failure decides, and what each mode does with it."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app import gate
from templates_app.datasets.base import Snapshot
from templates_app.errors import GATE_CODES
from templates_app.gate import Decision, StoredSignature, decide
from templates_app.lifecycle import GenerationState
from templates_app.trust import signify, statement

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
NAMES = ["dataset_present", "snapshot_unchanged", "statement_matches"]
ALL = [*NAMES, "signed", "key_trusted", "signature_valid"]


def trusted(key: signify.SecretKey = RELEASE, label: str = "release") -> signify.TrustedKey:
    return signify.TrustedKey(label, key.public_key)


def signature(
    key: signify.SecretKey = RELEASE, text: bytes = TEXT, **changes: Any
) -> StoredSignature:
    stored = StoredSignature(
        key_id=key.public_key.key_id,
        key_label="release",
        public_key=key.public_key.text,
        signature=key.sign(text),
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
        "trusted": [trusted()],
        "mode": "on",
    }
    return decide(**{**facts, **changes})


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
    "nobody has signed": ({"signatures": []}, "signed", "template_unsigned"),
    "no key is trusted": ({"trusted": []}, "key_trusted", "key_untrusted"),
    "another key is trusted": ({"trusted": [trusted(OTHER)]}, "key_trusted", "key_untrusted"),
    "another key with the same number is trusted": (
        {"trusted": [trusted(signify.SecretKey(RELEASE.keynum, OTHER.seed, b"x"))]},
        "key_trusted",
        "key_untrusted",
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


def test_every_code_of_a_refusal_is_reached_here_or_reserved():
    """``key_revoked`` waits for revocation in the log; signatures.md says so."""
    assert {code for _, _, code in WRONG.values()} | {"key_revoked"} == set(GATE_CODES)


def test_a_code_that_is_not_documented_cannot_be_given():
    with pytest.raises(ValueError, match="not a code"):
        gate._failed("signed", "no_such_code", "x", "y")


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
        decision = judge(signatures=signatures, trusted=keys)
        assert decision.allowed and decision.key_label == "other"
        assert "other" in decision.checks[4].reason


def test_the_label_is_the_trusted_files_not_the_rows():
    decision = judge(trusted=[trusted(label="renamed")])
    assert decision.allowed and decision.key_label == "renamed"


def test_reasons_name_what_was_found():
    assert "guid 2" in judge(live=dataclasses.replace(LIVE, guid="2")).checks[1].reason
    assert "1234567890123456789" in judge(live=None).checks[1].reason
    untrusted = judge(trusted=[]).checks[4]
    assert f"release ({RELEASE.public_key.key_id})" in untrusted.reason
    assert judge(signatures=[]).checks[3].next_step == "Sign it: coppice tpl sign web"


def test_the_decision_on_the_wire_has_these_keys():
    shown = judge(signatures=[]).to_json()
    assert list(shown) == [
        "template",
        "generation",
        "mode",
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
    trusted=st.lists(st.sampled_from([trusted(), trusted(OTHER, "other")]), max_size=2),
    mode=st.sampled_from(["on", "warn", "off"]),
)
@settings(deadline=None)
def test_nothing_is_signed_but_what_every_check_says(live, generation, signatures, trusted, mode):
    """The whole rule, said in one line, against the checks one by one."""
    decision = decide(
        name="web",
        generation=generation,
        live=live,
        signatures=signatures,
        trusted=trusted,
        mode=mode,
    )
    keys = {key.public_key.text for key in trusted}
    verifies = any(
        one.public_key in keys and one in (signature(), signature(OTHER)) for one in signatures
    )
    assert decision.signed == (live == LIVE and generation == GENERATION and verifies)
    assert decision.allowed == (decision.signed or (mode != "on" and live is not None))
    assert (decision.code is None) == decision.signed
