"""What buildah says, as an error of ours.

The texts are what Debian 12's buildah 1.28.2 wrote when a registry failed in these
ways (tests/contract/test_sources.py makes it fail so); a few that need an expired certificate, a
quota or the like are worded after the program's sources.
"""

# Each text is one line, as it came.
# ruff: noqa: E501

from __future__ import annotations

import base64
import json

import pytest

from templates_app.errors import (
    PULL_REASONS,
    MalformedReference,
    OutOfSpace,
    ProgramFailed,
    ProgramKilled,
    PullFailed,
    StorageReadOnly,
    TreeRefused,
)
from templates_app.names import Reference
from templates_app.run import Result
from templates_app.sources import complaints

REFERENCE = Reference.parse("localhost:5000/team/x:1")
DIGEST = "sha256:d06bb33c8920a40263d6c33da0ff7b390d17bb5133af3407d1597e2b232e13b0"
OTHER = "sha256:864dd0a4182f6e844cceaf90b140212fa0036ee04b7c26e225918f745a4facde"


def buildah(what):
    """As buildah words it: warnings while it tries again, then the error."""
    again = f'time="2026-11-24T15:47:59Z" level=warning msg="Failed, retrying in 2s ... ({{n}}/3). Error: {what}"\n'
    return "".join(again.format(n=n) for n in (1, 2, 3)) + f"Error: {what}\n"


def blob(what):
    return buildah(f"reading blob {DIGEST}: {what}")


def source(what):
    return buildah(f"initializing source docker://localhost:5000/team/x@{DIGEST}: {what}")


def manifest(what):
    return source(f"reading manifest {DIGEST} in localhost:5000/team/x: {what}")


def error(stderr, reference=REFERENCE, auth_file=None, program="buildah"):
    result = Result((program, "pull"), 125, "", stderr)
    return complaints.error(result, reference, auth_file)


TEXTS = [
    ("unauthorized", manifest("unauthorized: authentication required")),
    (
        "unauthorized",
        blob("unable to retrieve auth token: invalid username/password: unauthorized: authentication required"),
    ),
    ("denied", manifest("StatusCode: 403, ")),
    ("denied", manifest("denied")),
    ("denied", blob("Error fetching blob: invalid status code from registry 403 (Forbidden)")),
    ("denied", manifest("denied: requested access to the resource is denied")),
    ("not_found", manifest("StatusCode: 404, ")),
    ("not_found", manifest("manifest unknown: manifest unknown")),
    ("not_found", manifest("name unknown: repository name not known to registry")),
    ("not_found", manifest("name invalid")),
    ("not_found", blob("Error fetching blob: invalid status code from registry 404 (Not Found)")),
    ("rate_limited", manifest("StatusCode: 429, ")),
    ("rate_limited", manifest("toomanyrequests: You have reached your pull rate limit.")),
    ("rate_limited", blob("too many requests to registry")),
    ("unreachable", manifest("received unexpected HTTP status: 500 Internal Server Error")),
    ("unreachable", manifest("received unexpected HTTP status: 502 Bad Gateway")),
    ("unreachable", blob("Error fetching blob: invalid status code from registry 503 (Service Unavailable)")),
    ("unreachable", source('pinging container registry localhost:5000: Get "http://localhost:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused')),
    ("unreachable", source('pinging container registry x.invalid: Get "https://x.invalid/v2/": dial tcp: lookup x.invalid: no such host')),
    ("unreachable", blob('Get "http://localhost:1/x": dial tcp 127.0.0.1:1: connect: connection refused')),
    ("tls", source('pinging container registry localhost:5000: Get "https://localhost:5000/v2/": http: server gave HTTP response to HTTPS client')),
    ("tls", source('pinging container registry localhost:5000: Get "https://localhost:5000/v2/": x509: certificate signed by unknown authority')),
    ("tls", source('pinging container registry localhost:5000: Get "https://localhost:5000/v2/": x509: certificate has expired or is not yet valid')),
    ("tls", source('pinging container registry localhost:5000: Get "https://localhost:5000/v2/": remote error: tls: handshake failure')),
    ("corrupt", source("unexpected EOF")),
    ("corrupt", blob(f"Download config.json digest {OTHER} does not match expected {DIGEST}")),
    ("corrupt", buildah(f"parsing image configuration: Download config.json digest {OTHER} does not match expected {DIGEST}")),
    ("corrupt", buildah(f"determining manifest MIME type for docker://localhost:5000/team/x@{DIGEST}: Manifest does not match provided manifest digest {DIGEST}")),
    ("corrupt", blob(f"Digest did not match, expected {DIGEST}, got {OTHER}")),
    ("corrupt", buildah(f"writing blob: setting up to decompress blob: happened during read: Digest did not match, expected {DIGEST}, got {OTHER}")),
    ("corrupt", buildah('writing blob: storing blob to file "/srv/state/containers/tmp/0123abcd/storage2423657541/1": happened during read: unexpected EOF')),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "stderr"), TEXTS)
def test_each_text_has_its_reason(reason, stderr):
    found = error(stderr)
    assert isinstance(found, PullFailed)
    assert found.reason == reason
    assert found.extra == {"reason": reason}


def test_every_reason_has_a_text_here():
    assert {reason for reason, _ in TEXTS} == set(PULL_REASONS)


@pytest.mark.parametrize(("reason", "stderr"), TEXTS)
def test_a_caller_never_sees_the_text(reason, stderr):
    found = error(stderr)
    assert found.private == stderr
    assert found.detail == f"localhost:5000/team/x:1: {PULL_REASONS[reason]}"


@pytest.mark.parametrize(
    "words", ["denied", "unauthorized", "toomanyrequests", "x509", "no-such-host/manifest-unknown"]
)
def test_the_name_of_an_image_is_no_complaint(words):
    """A repository may be called `denied`, and a tag too."""
    reference = Reference.parse(f"localhost:5000/{words}:{words.replace('/', '-')}")
    text = f"reading manifest 1 in {reference.name}: StatusCode: 404, "
    assert error(buildah(text), reference).reason == "not_found"
    text = f"initializing source docker://{reference.name}@{DIGEST}: unexpected EOF"
    assert error(buildah(text), reference).reason == "corrupt"


def test_a_digest_is_no_status():
    """404 hexadecimal digits somewhere in a digest say nothing."""
    digest = "sha256:" + "404429500401403" * 4 + "4044"
    found = error(blob(f"Digest did not match, expected {digest}, got {OTHER}"))
    assert found.reason == "corrupt"


def test_only_the_last_complaint_counts():
    """The programs try again by themselves: what they say of the first times is over."""
    first = (
        'time="x" level=warning msg="Failed, retrying in 2s ... (1/3). Error: toomanyrequests"\n'
    )
    assert error(first + buildah("parsing image configuration: unexpected EOF")).reason == "corrupt"


# --- what is not the registry's fault ------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (buildah('writing blob: storing blob to file "/x/1": write /x/1: no space left on device'), OutOfSpace),
        (buildah('writing blob: storing blob to file "/x/1": write /x/1: disk quota exceeded'), OutOfSpace),
        (buildah("mkdir /x/storage: read-only file system"), StorageReadOnly),
        (buildah('writing blob: adding layer with blob "sha256:x": Error processing tar file(signal: killed): '), ProgramKilled),
        (buildah('writing blob: adding layer with blob "sha256:x": Error processing tar file(exit status 1): archive/tar: invalid tar header'), TreeRefused),
        (buildah('writing blob: adding layer with blob "sha256:x": ApplyLayer exit status 1 stdout:  stderr: unpacking failed'), TreeRefused),
        (buildah("something that nobody has seen before"), ProgramFailed),
        ("", ProgramFailed),
        (source("invalid reference format"), MalformedReference),
    ],
)  # fmt: skip
def test_other_causes_are_told_apart(stderr, kind):
    found = error(stderr)
    assert type(found) is kind
    assert found.private == stderr
    assert "/x" not in found.detail + found.next_step


def test_a_full_disk_within_a_layer_is_a_full_disk():
    text = "Error processing tar file(exit status 1): write /usr/x: no space left on device"
    assert isinstance(error(buildah(text)), OutOfSpace)


def test_only_the_end_is_kept_for_the_log():
    found = error("x" * 10_000 + "\n" + manifest("StatusCode: 404, "))
    assert found.reason == "not_found" and len(found.private) == 4000


# --- 401: none, or the wrong ones ----------------------------------------------------------------

NO_ENTRY = manifest("unauthorized: authentication required")


def auth(tmp_path, key, word="operator:secret"):
    place = tmp_path / "auth.json"
    encoded = base64.b64encode(word.encode()).decode()
    place.write_text(json.dumps({"auths": {key: {"auth": encoded}}}))
    return place


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("localhost:5000", True),
        ("localhost:5000/team", True),
        ("localhost:5000/team/x", True),
        ("localhost:5000/tea", False),
        ("localhost:5000/team/x/y", False),
        ("localhost", False),
        ("quay.io", False),
    ],
)
def test_credentials_that_were_sent_are_refused(tmp_path, key, sent):
    found = error(NO_ENTRY, auth_file=auth(tmp_path, key))
    assert found.reason == "unauthorized"
    assert ("refuses the credentials" in found.detail) is sent


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"auths": []}', '{"auths": {"localhost:5000": []}}', "\xff", '{"auths": 1}']
    + ['{"auths": {"localhost:5000": {"auth": "%"}}}', '{"auths": {"localhost:5000": {}}}']
    + ['{"auths": {"localhost:5000": {"auth": 7}}}', '{"auths": {"localhost:5000": null}}'],
)
def test_a_file_of_another_format_has_no_credentials(tmp_path, text):
    place = tmp_path / "auth.json"
    place.write_text(text, "latin-1")
    assert error(NO_ENTRY, auth_file=place).reason == "unauthorized"


def test_a_file_that_is_not_there_has_none(tmp_path):
    assert error(NO_ENTRY, auth_file=tmp_path / "no.json").reason == "unauthorized"
