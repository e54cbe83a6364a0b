"""Parsed values: what each grammar takes; all else is refused with an error of its own."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app import sources
from templates_app.errors import (
    MalformedDigest,
    MalformedName,
    MalformedReference,
    SchemeNotImplemented,
)
from templates_app.names import (
    Digest,
    Platform,
    Reference,
    SnapshotName,
    TemplateName,
    human_size,
    quote,
)
from templates_app.sources.base import SourceContext

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


# --- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical", "floating"),
    [
        ("quay.io/a/b", "quay.io/a/b:latest", True),
        ("quay.io/a/b:14.1", "quay.io/a/b:14.1", True),
        (f"quay.io/a/b@{DIGEST}", f"quay.io/a/b@{DIGEST}", False),
        (f"quay.io/a/b:14.1@{DIGEST}", f"quay.io/a/b:14.1@{DIGEST}", False),
        ("localhost/b", "localhost/b:latest", True),
        ("LOCALHOST/b", "localhost/b:latest", True),
        ("localhost:5000/a/b/c/d:x", "localhost:5000/a/b/c/d:x", True),
        ("Quay.IO/a", "quay.io/a:latest", True),
        ("registry:5000/a", "registry:5000/a:latest", True),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", True),
        ("[::1]:5000/a", "[::1]:5000/a:latest", True),
        ("[FE80::1]/a", "[fe80::1]/a:latest", True),
        ("quay.io/a__b/c.d/e-f/g---h:_T.a-g", "quay.io/a__b/c.d/e-f/g---h:_T.a-g", True),
        (f"quay.io/a:{'t' * 128}", f"quay.io/a:{'t' * 128}", True),
        (f"quay.io/{'a' * 255}", f"quay.io/{'a' * 255}:latest", True),
        ("quay.io/denied/latest:latest", "quay.io/denied/latest:latest", True),
    ],
)
def test_a_reference_names_a_registry_explicitly(text, canonical, floating):
    found = Reference.parse(text)
    assert (found.given, found.canonical, str(found)) == (text, canonical, canonical)
    assert found.floating is floating


def test_the_digest_decides_where_there_are_both():
    both = Reference.parse(f"quay.io/a/b:1@{DIGEST}")
    assert (both.tag, both.digest) == ("1", Digest(DIGEST))
    assert both.name == "quay.io/a/b"
    assert not both.floating


@pytest.mark.parametrize(
    "text",
    [
        "",
        # An option, whatever comes after it.
        "-quay.io/a",
        "--root=/x",
        "-",
        # Nested transports: in buildah each of these selects something on the host.
        "docker://quay.io/a",
        "oci:/var/lib/x",
        "dir:/etc",
        "tarball:/x",
        "oci-archive:/x.tar",
        "docker-archive:/x.tar",
        "docker-daemon:a:b",
        "containers-storage:a",
        "containers-storage:[overlay@/x+/y]a",
        "ostree:a@/x",
        "sif:/x",
        # No host.
        "freebsd",
        "freebsd:14",
        "library/freebsd",
        "a/b/c:1",
        "/etc/passwd",
        "./a",
        "../a",
        "~/a",
        HEX,
        DIGEST,
        f"@{DIGEST}",
        # A host and nothing else, or one that is none.
        "quay.io",
        "quay.io/",
        "quay.io:443",
        "localhost:0/a",
        "localhost:65536/a",
        "localhost:/a",
        "localhost:1:2/a",
        "localhost:-1/a",
        "quay..io/a",
        ".quay.io/a",
        "quay.io./a",
        "-q.io/a",
        "q-.io/a",
        "user@quay.io/a",
        "user:secret@quay.io/a",
        "https://quay.io/a",
        "[::1/a",
        "::1/a",
        "[]/a",
        "[::1]x/a",
        "[::1%25eth0]/a",
        # A repository that is none.
        "quay.io//a",
        "quay.io/a//b",
        "quay.io/a/",
        "quay.io/A",
        "quay.io/a/../b",
        "quay.io/./a",
        "quay.io/-a",
        "quay.io/a-",
        "quay.io/a___b",
        "quay.io/a..b",
        "quay.io/a?x=1",
        "quay.io/a#b",
        "quay.io/a%2fb",
        "quay.io/a\\b",
        f"quay.io/{'a' * 256}",
        # A tag or digest that is none.
        "quay.io/a:",
        "quay.io/a:b:c",
        "quay.io/a:-b",
        "quay.io/a:.b",
        "quay.io/a:b/c",
        f"quay.io/a:{'t' * 129}",
        "quay.io/a@",
        "quay.io/a@sha256:abc",
        f"quay.io/a@sha256:{HEX.upper()}",
        f"quay.io/a@sha256:{HEX}0",
        f"quay.io/a@sha512:{HEX * 2}",
        f"quay.io/a@{DIGEST}@{DIGEST}",
        f"quay.io/a@{DIGEST}:1",
        f"quay.io/a:@{DIGEST}",
        # Whitespace, control characters, what is not ASCII.
        " quay.io/a",
        "quay.io/a ",
        "quay.io/a b",
        "quay.io/a\n",
        "quay.io/a\t",
        "quay.io/a\0",
        "quay.io/a\x7f",
        "quay.io/a:1 --tls-verify=false",
        "quay.io/\u0430",  # Cyrillic
        "quay\u3002io/a",  # a full stop to IDNA
        "quay.io/a\u200b",
        "quay.io/\u0661",  # a digit to str.isdigit
        "\ud800.io/a",
        f"quay.io/{'a/' * 300}a",
    ],
)
def test_nothing_else_is_a_reference(text):
    with pytest.raises(MalformedReference) as refused:
        Reference.parse(text)
    assert refused.value.detail.isascii() or "…" in refused.value.detail
    assert "\n" not in refused.value.detail
    assert len(refused.value.detail) < 250


@pytest.mark.parametrize("text", ["-quay.io/a", "--root=/x", "-"])
def test_an_option_is_refused_as_one(text):
    with pytest.raises(MalformedReference, match="like an option"):
        Reference.parse(text)


_part = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,2})[a-z0-9]{1,5}){0,2}", fullmatch=True)
_repository = st.lists(_part, min_size=1, max_size=4).map("/".join)
_host = st.one_of(
    st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,6}){1,3}(:[1-9][0-9]{0,3})?", fullmatch=True),
    st.from_regex(r"[A-Za-z]{1,9}:[1-9][0-9]{0,3}", fullmatch=True),
    st.sampled_from(["localhost", "[::1]", "[::1]:5000", "LocalHost:1"]),
)
_tag = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True)
_digest = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)


@given(_host, _repository, st.none() | _tag, st.none() | _digest)
def test_what_is_canonical_is_parsed_to_itself(host, repository, tag, digest):
    text = f"{host}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    found = Reference.parse(text)
    again = Reference.parse(found.canonical)
    assert again.canonical == found.canonical
    assert (again.host, again.repository, again.tag, again.digest, again.floating) == (
        (found.host, found.repository, found.tag, found.digest, found.floating)
    )
    assert found.repository == repository
    assert found.tag == (tag or (None if digest else "latest"))
    assert str(found.digest or "") == (digest or "")


_ODD = st.text(st.sampled_from("ab1.:/@-_[]= \n\0\u0430%~") | st.characters(), max_size=40)


@given(_ODD | st.tuples(st.just("quay.io/a"), _ODD).map("".join))
def test_whatever_is_parsed_is_safe_as_an_operand(text):
    """No input crashes, and what passes can be one word of a command line and one URL."""
    try:
        found = Reference.parse(text)
    except MalformedReference:
        return
    operand = f"docker://{found.canonical}"
    assert re.fullmatch(r"docker://[a-z0-9\[][a-z0-9.:\[\]-]*/[a-z0-9][A-Za-z0-9._/:@-]*", operand)
    assert "//" not in found.canonical
    assert ".." not in found.repository


# --- schemes -------------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path):
    return SourceContext(
        platform=Platform("linux", "amd64"),
        allowed=(),
        insecure=(),
        auth_file=None,
        step_seconds=10,
        state_dir=tmp_path,
        limit_image_bytes=1,
    )


def test_a_scheme_is_cut_off_once(context):
    source = sources.parse("oci:quay.io/a/b", context)
    assert (source.scheme, source.given, source.canonical) == (
        ("oci", "quay.io/a/b", "quay.io/a/b:latest")
    )


@pytest.mark.parametrize(
    "text",
    ["quay.io/a/b", "quay.io/a:1", "localhost:5000/a", "freebsd", "", ":", ":x", "OCI:quay.io/a"]
    + ["ftp:x", "oci:oci:quay.io/a", "oci:oci:/var/lib/x", "oci:docker://quay.io/a", " oci:q.io/a"]
    + ["oci :quay.io/a", "docker:quay.io/a", "containers-storage:x", "dir:/etc", "tarball:/x"],
)
def test_what_is_not_of_a_known_scheme_is_malformed(context, text):
    with pytest.raises(MalformedReference):
        sources.parse(text, context)


@pytest.mark.parametrize("scheme", sorted(sources.RESERVED))
def test_a_reserved_scheme_says_so_in_a_sentence_of_its_own(context, scheme):
    with pytest.raises(SchemeNotImplemented) as refused:
        sources.parse(f"{scheme}:/somewhere", context)
    assert refused.value.extra == {"scheme": scheme}
    assert (refused.value.status, refused.value.exit_status) == (501, 3)
    assert "not built" in refused.value.detail or "follow" in refused.value.detail


def test_the_schemes_that_the_design_reserves_are_reserved():
    assert {"dockerfile", "git", "zfs-send"} <= set(sources.RESERVED)
    assert set(sources.SCHEMES) >= sources.LOCAL
    assert set(sources.SCHEMES).isdisjoint(sources.RESERVED)


# --- template names ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "0", "fbsd14-min", "a-", "a--b", "z" * 64, HEX[:63]])
def test_a_template_name(text):
    assert str(TemplateName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", "A", "a_b", "a.b", "a/b", "a@base", "..", "a b", "a\n", "\na", "z" * 65, HEX]
    + ["é", "\u0661", "a\0", "a%", "#a"],
)
def test_what_is_no_template_name(text):
    with pytest.raises(MalformedName):
        TemplateName.parse(text)


@given(st.text(string.printable, max_size=70))
def test_a_template_name_is_a_dataset_name_too(text):
    try:
        TemplateName.parse(text)
    except MalformedName:
        return
    assert set(text) <= set(string.ascii_lowercase + string.digits + "-")
    assert not text.startswith("-")


# --- digests, platforms, snapshots ---------------------------------------------------------------


def test_a_digest():
    assert (Digest.parse(DIGEST).hex, str(Digest.parse(DIGEST))) == (HEX, DIGEST)


@pytest.mark.parametrize(
    "text",
    ["", HEX, "sha256:", f"sha256:{HEX[1:]}", f"{DIGEST}\n", f" {DIGEST}", f"SHA256:{HEX}"]
    + [f"sha256:{HEX.upper()}", f"sha256:../{HEX[3:]}", f"sha1:{HEX[:40]}", f"sha512:{HEX}"],
)
def test_what_is_no_digest(text):
    with pytest.raises(MalformedDigest):
        Digest.parse(text)


@pytest.mark.parametrize("text", ["freebsd/amd64", "linux/arm/v7", "linux/arm64/v8", "wasip1/wasm"])
def test_a_platform(text):
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "linux", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x", "Linux/amd64", "linux/a b"]
    + ["linux/amd64\n", "-x/amd64", "linux/../etc", "linux/" + "a" * 33],
)
def test_what_is_no_platform(text):
    with pytest.raises(MalformedReference):
        Platform.parse(text)


def test_a_snapshot_name():
    found = SnapshotName.parse("zroot/jails/web-template@base")
    assert (found.dataset, found.snapshot) == ("zroot/jails/web-template", "base")
    assert str(found) == "zroot/jails/web-template@base"
    for odd in ("", "zroot", "zroot@", "@base", "a b@base", "a@b\n"):
        with pytest.raises(ValueError, match="not a snapshot name"):
            SnapshotName.parse(odd)


# --- what people read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (164_835_328, "157.2M"),
        (1024**2 - 1, "1.0M"),
        (1024**2, "1.0M"),
        (1024**3 - 1, "1.0G"),
        (5 * 1024**4, "5.0T"),
        (2**63, "8192.0P"),
    ],
)
def test_sizes_are_in_powers_of_1024(size, text):
    assert human_size(size) == text


_near_a_unit = st.tuples(st.integers(1, 5), st.integers(-200, 200)).map(
    lambda pair: 1024 ** pair[0] + pair[1] * 1024 ** (pair[0] - 1) // 1000
)


@given(st.integers(0, 2**63) | _near_a_unit)
def test_a_size_is_never_1024_of_a_unit(size):
    number = human_size(size)[:-1]
    assert float(number) < 1024 or human_size(size).endswith("P")


@given(st.text(max_size=200))
def test_what_is_quoted_is_one_short_line(text):
    shown = quote(text)
    assert len(shown) <= 80
    assert shown.replace("…", "").isascii() and shown.isprintable()
