"""What is signed: the same bytes everywhere, and only bytes that have one meaning."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.errors import CoppiceError, MalformedDigest, StatementMalformed
from templates_app.events import Deviation, Digests
from templates_app.trust import statement

ROOT = Path(__file__).resolve().parents[2]


def digest(word: str) -> str:
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


FACTS = {
    "template": "web",
    "tree_digest": digest("tree"),
    "canonical_reference": "oci:quay.io/project/web:1",
    "platform": "freebsd/amd64",
    "digests": Digests(index=digest("i"), manifest=digest("m"), config=digest("c")),
    "exclusions": ("/dev/*", "/proc/*"),
    "deviations": (
        Deviation(path="/etc/resolv.conf", reason="planted", sha256=digest("dns")),
        Deviation(path="/var/empty", reason="flags cannot be kept"),
    ),
}


def build(**changes) -> bytes:
    return statement.build(**{**FACTS, **changes})


BUILT = build()
ADOPTED = statement.build_adopted(template="web", tree_digest=digest("tree"))


def test_it_is_an_in_toto_statement_with_slsa_provenance_and_nothing_else():
    assert json.loads(BUILT) == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "web", "digest": {"sha256": digest("tree")[7:]}}],
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:coppice:build:image:v1",
                "externalParameters": {
                    "name": "web",
                    "reference": "oci:quay.io/project/web:1",
                    "platform": "freebsd/amd64",
                },
                "internalParameters": {
                    "exclusions": ["/dev/*", "/proc/*"],
                    "deviations": [
                        {"path": "/etc/resolv.conf", "sha256": digest("dns")[7:]},
                        {"path": "/var/empty"},
                    ],
                },
                "resolvedDependencies": [
                    {"name": "index", "digest": {"sha256": digest("i")[7:]}},
                    {"name": "manifest", "digest": {"sha256": digest("m")[7:]}},
                    {"name": "config", "digest": {"sha256": digest("c")[7:]}},
                ],
            },
            "runDetails": {"builder": {"id": "urn:coppice:builder:v1"}},
        },
    }


def test_a_hand_made_template_says_that_its_origin_is_not_known():
    definition = json.loads(ADOPTED)["predicate"]["buildDefinition"]
    assert definition == {
        "buildType": "urn:coppice:build:adopted:v1",
        "externalParameters": {"name": "web"},
    }


def test_an_image_without_an_index_has_none():
    made = json.loads(build(digests=Digests(index=None, manifest=digest("m"), config=digest("c"))))
    names = [d["name"] for d in made["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert names == ["manifest", "config"]


def test_it_is_canonical_json_without_a_newline_at_its_end():
    for text in (BUILT, ADOPTED):
        assert rfc8785.dumps(json.loads(text)) == text
        assert text.decode("ascii").isprintable()  # so that it is the same in every encoding


def test_the_bytes_are_pinned():
    """Signatures are over these bytes: whoever changes them takes a new build type."""
    assert statement.digest(BUILT) == (
        "sha256:8a112a0bf88f17027c9bc5d5d6ed020d53da22c2e6d365cbe7b4655306b708fe"
    )
    assert statement.digest(ADOPTED) == (
        "sha256:6768b695b1c8511ef5983d9997d65c35b282fe44aa17d1f8da0a77f4a3c139d8"
    )


def test_the_order_in_which_things_were_found_does_not_matter():
    assert (
        build(exclusions=reversed(FACTS["exclusions"]), deviations=FACTS["deviations"][::-1])
        == BUILT
    )
    assert build(exclusions=[*FACTS["exclusions"], "/dev/*"]) == BUILT


def test_a_better_sentence_needs_no_new_signature():
    other = [
        Deviation(path=d.path, reason="said better", sha256=d.sha256) for d in FACTS["deviations"]
    ]
    assert build(deviations=other) == BUILT


@pytest.mark.parametrize(
    "change",
    [
        {"template": "db"},
        {"tree_digest": digest("other")},
        {"canonical_reference": "oci:quay.io/project/web:2"},
        {"platform": "linux/amd64"},
        {"digests": Digests(index=digest("x"), manifest=digest("m"), config=digest("c"))},
        {"digests": Digests(index=digest("i"), manifest=digest("x"), config=digest("c"))},
        {"digests": Digests(index=digest("i"), manifest=digest("m"), config=digest("x"))},
        {"digests": Digests(index=None, manifest=digest("m"), config=digest("c"))},
        {"exclusions": ("/dev/*",)},
        {"deviations": ()},
        {"deviations": (Deviation(path="/etc/resolv.conf", reason="planted", sha256=digest("x")),)},
    ],
)
def test_whatever_changes_the_bytes_of_a_template_changes_its_statement(change):
    assert build(**change) != BUILT


def test_another_process_on_another_host_name_at_another_time_makes_the_same_bytes():
    """Hash seeds, clocks, time zones, locales, users, directories: none of it is in it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit import test_statement as t\n"
        "sys.stdout.buffer.write(t.BUILT + b'\\n' + t.ADOPTED)"
    )
    made = {
        subprocess.run(
            ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
            + [sys.executable, "-c", code, str(ROOT)],
            env={
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                "PYTHONHASHSEED": seed,
                "TZ": zone,
                "LANG": lang,
            },
            cwd=place,
            capture_output=True,
            check=True,
        ).stdout
        for host, seed, zone, lang, place in (
            ("one", "1", "UTC", "C", "/"),
            ("two", "99", "Asia/Tokyo", "de_DE.UTF-8", "/usr"),
        )
    }
    assert made == {BUILT + b"\n" + ADOPTED}


# --- reading -------------------------------------------------------------------------------------


def test_it_binds_the_name_to_the_tree():
    assert statement.subject(BUILT) == statement.subject(ADOPTED) == ("web", digest("tree"))


def edited(*path, value, of: bytes = BUILT) -> bytes:
    """The statement with one member replaced, canonical again."""
    parsed = json.loads(of)
    place = parsed
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return rfc8785.dumps(parsed)


DEFINITION = ("predicate", "buildDefinition")
ONE = {"name": "web", "digest": {"sha256": digest("tree")[7:]}}


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"web"',
        b"\xff",
        BUILT + b"\n",
        b" " + BUILT,
        b"\xef\xbb\xbf" + BUILT,
        BUILT[:-1],
        BUILT + BUILT,
        json.dumps(json.loads(BUILT)).encode(),  # the same meaning in other bytes
        json.dumps(json.loads(BUILT), sort_keys=True, separators=(",", ":")).encode() + b" ",
        # Two readers could see two things in it.
        BUILT.replace(b'"_type":', b'"_type":"x","_type":', 1),
        BUILT.replace(b'"subject":[', b'"subject":[],"subject":[', 1),
        BUILT.replace(b'"name":"web"', b'"name":"db","name":"web"', 1),
        BUILT.replace(b'"name":"web"', b'"name":"\\u0077eb"', 1),
        BUILT.replace(b'"web"', b'"web\xff"', 1),
        # About two templates, or none, or two trees.
        edited("subject", value=[]),
        edited("subject", value=[ONE, ONE]),
        edited("subject", value=[ONE, {**ONE, "name": "db"}]),
        edited("subject", value=ONE),
        edited("subject", value="web"),
        edited("subject", 0, "name", value="db"),
        edited("subject", 0, "name", value=7),
        edited("subject", 0, "name", value=["web"]),
        edited("subject", 0, "digest", value={}),
        edited("subject", 0, "digest", value={"sha256": "a" * 64, "sha512": "a" * 128}),
        edited("subject", 0, "digest", value={"md5": "a" * 64}),
        edited("subject", 0, "digest", value={"sha256": "A" * 64}),
        edited("subject", 0, "digest", value={"sha256": "a" * 63}),
        edited("subject", 0, "digest", value={"sha256": 7}),
        edited("subject", 0, "digest", value="sha256"),
        edited(*DEFINITION, "externalParameters", "name", value="db"),
        edited(*DEFINITION, "externalParameters", value=None),
        # A statement of another kind, which somebody signed for another reason.
        edited("_type", value="https://in-toto.io/Statement/v0.1"),
        edited("predicateType", value="https://slsa.dev/provenance/v0.2"),
        edited(*DEFINITION, "buildType", value="urn:coppice:build:image:v2"),
        edited(*DEFINITION, "buildType", value=["urn:coppice:build:image:v1"]),
        edited("predicate", value=None),
        edited("predicate", value=[]),
        edited("predicate", value=7),
        edited(*DEFINITION, value="x"),
        # Names that are not ours.
        *(
            edited(
                *DEFINITION,
                "externalParameters",
                "name",
                value=odd,
                of=edited("subject", 0, "name", value=odd),
            )
            for odd in ("WEB", "../web", "", "a" * 65, "a" * 64)
        ),
        # Deep, long, and numbers that readers round.
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":9007199254740993}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b" " * (statement.MAX_BYTES + 1),
    ],
)
def test_what_build_could_not_have_made_is_malformed(forged: bytes):
    with pytest.raises(StatementMalformed) as refused:
        statement.subject(forged)
    assert refused.value.detail.isprintable()


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.one_of(st.binary(max_size=200), JSONS.map(lambda j: json.dumps(j).encode())))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_malformed_and_nothing_else(data: bytes):
    with pytest.raises(StatementMalformed):
        statement.subject(data)


@given(
    st.sampled_from(["_type", "predicateType", "subject", "predicate"]) | st.text(max_size=5), JSONS
)
@settings(max_examples=300, deadline=None)
def test_a_statement_with_anything_in_one_place_has_a_subject_or_is_malformed(key: str, value):
    parsed = {**json.loads(BUILT), key: value}
    try:
        text = rfc8785.dumps(parsed)
    except rfc8785.CanonicalizationError:
        return
    with contextlib.suppress(StatementMalformed):
        assert statement.subject(text) == ("web", digest("tree"))


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(max_size=20), max_size=4),
    st.lists(st.tuples(st.text(max_size=20), st.booleans()), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_what_was_built_is_read_whatever_the_paths(name, tree, exclusions, deviations):
    tree_digest = f"sha256:{tree.hex()}"
    try:
        text = build(
            template=name,
            tree_digest=tree_digest,
            exclusions=exclusions,
            deviations=[
                Deviation(path=path, reason="r", sha256=digest(path) if known else None)
                for path, known in deviations
            ],
        )
    except UnicodeEncodeError:
        return
    assert statement.subject(text) == (name, tree_digest)


def test_a_digest_that_is_none_makes_no_statement():
    for odd in ("", "sha256:", "sha512:" + "a" * 64, "a" * 64, "sha256:" + "A" * 64):
        with pytest.raises(MalformedDigest):
            build(tree_digest=odd)
        with pytest.raises(CoppiceError):
            statement.build_adopted(template="web", tree_digest=odd)


def test_the_digest_is_that_of_the_bytes():
    assert statement.digest(BUILT) == "sha256:" + hashlib.sha256(BUILT).hexdigest()


def test_the_build_types_are_documented():
    text = (ROOT / "docs" / "reference" / "statement.md").read_text()
    for word in (statement.IMPORTED, statement.ADOPTED, statement.BUILDER, statement.PROVENANCE):
        assert f"`{word}`" in text
    for key in json.loads(BUILT)["predicate"]["buildDefinition"]:
        assert f"`{key}`" in text
