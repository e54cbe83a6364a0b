"""The distribution protocol, against a registry that lies, stalls and breaks off.

Rules are those of the distribution-spec and of what was learned since: D1 to D3, D7 to D12.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from templates_app.errors import ImportTimeout, NotAnImage, PullFailed, RegistryNotAllowed
from templates_app.names import Digest
from templates_app.sources import documents
from templates_app.sources.native import registry, throttle
from tests.liars import BLOB, MANIFEST, asked, digest_of, failed, in_turn, ranged, status, whole
from tests.registries import certificates

DIGEST = Digest(digest_of(BLOB))
KIND = "application/vnd.oci.image.manifest.v1+json"


# --- manifests -----------------------------------------------------------------------------------


def test_what_is_accepted_has_digests(context, liar):
    """D2: one list; schema 1 is not in it."""
    liar.gives("manifests/1$", MANIFEST, Content_Type=f"{KIND}; charset=utf-8")
    with asked(context, liar) as it:
        found = it.manifest("1")
    assert (found.data, found.media_type, found.digest.text) == (
        MANIFEST,
        KIND,
        digest_of(MANIFEST),
    )
    (seen,) = liar.requests
    assert (seen.method, seen.target) == ("GET", "/v2/a/b/manifests/1")
    assert seen.headers["accept"].split(", ") == [
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    ]
    assert seen.headers["accept-encoding"] == "identity"


def test_a_head_says_what_a_tag_names(context, liar):
    """D3: by the header, where there is one."""
    liar.gives("manifests/1$", MANIFEST, Docker_Content_Digest=digest_of(MANIFEST))
    with asked(context, liar) as it:
        assert it.head("1") == Digest(digest_of(MANIFEST))
    assert liar.targets("HEAD") == ["/v2/a/b/manifests/1"] and liar.targets("GET") == []


@pytest.mark.parametrize("said", ["", "sha256:../../x", "sha512:" + "a" * 128, "sha256:ABC"])
def test_a_header_that_is_no_digest_says_nothing(context, liar, said):
    liar.gives("manifests", MANIFEST, Docker_Content_Digest=said)
    with asked(context, liar) as it:
        assert it.head("1") is None


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "unauthorized"), (403, "denied"), (404, "not_found")]
)
def test_a_head_that_is_refused(context, liar, code, reason):
    liar.on("manifests", status(code))
    with asked(context, liar) as it:
        assert failed(it.head, "1").reason == reason


@pytest.mark.parametrize("code", [400, 405, 501])
def test_a_registry_without_head(context, liar, code):
    liar.on("manifests", status(code))
    with asked(context, liar) as it:
        assert it.head("1") is None


def test_bytes_of_another_digest_are_corrupt(context, liar):
    liar.gives("manifests", MANIFEST + b" ", Docker_Content_Digest=digest_of(MANIFEST))
    with asked(context, liar) as it:
        assert failed(it.manifest, Digest(digest_of(MANIFEST))).reason == "corrupt"
    assert len(liar.requests) == 1  # a lie is not tried again


def test_a_manifest_is_4_mib_at_the_most(context, liar):
    """D12. It ends there, whatever is still to come."""

    def endless(it):
        it.send_response(200)
        it.send_header("Transfer-Encoding", "chunked")
        it.end_headers()
        for _ in range(64):
            it.raw(b"100000\r\n" + b" " * 2**20 + b"\r\n")

    liar.gives("manifests/exact", b" " * documents.MAX_DOCUMENT)
    liar.on("manifests/endless", endless)
    with asked(context, liar) as it:
        assert len(it.manifest("exact").data) == documents.MAX_DOCUMENT
        with pytest.raises(NotAnImage, match="larger"):
            it.manifest("endless")


def test_a_config_is_compared_with_its_digest(context, liar):
    liar.gives("blobs", b"{}")
    with asked(context, liar) as it:
        assert it.document(Digest(digest_of(b"{}")), 2) == b"{}"
        assert failed(it.document, Digest(digest_of(b"[]")), 2).reason == "corrupt"
        assert failed(it.document, Digest(digest_of(b"{}")), 3).reason == "corrupt"
        assert failed(it.document, Digest(digest_of(b"{}")), 1).reason == "corrupt"
        with pytest.raises(ValueError, match="small"):
            it.document(DIGEST, documents.MAX_DOCUMENT + 1)


def test_a_body_in_another_encoding_is_not_unpacked(context, liar):
    """D7: a decompressor in the client would be one more for a bomb."""
    liar.gives("manifests", MANIFEST, Content_Encoding="gzip")
    with asked(context, liar) as it:
        assert failed(it.manifest, "1").reason == "corrupt"


def test_the_hub_is_asked_where_it_is(context, liar, names):
    """D1: registry-1.docker.io, and `library/` in front of official images."""
    names["registry-1.docker.io"] = ["127.0.0.1"]
    with asked(context, "docker.io", "alpine") as it, pytest.raises(RegistryNotAllowed):
        it.manifest("1")
    assert names.asked == ["registry-1.docker.io"]
    assert it._places[0].url.target == "/v2/library/alpine"
    assert asked(context, "docker.io", "me/x")._places[0].url.target == "/v2/me/x"
    assert asked(context, "quay.io", "alpine")._places[0].url.target == "/v2/alpine"


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "reason"),
    [
        (401, b"", "unauthorized"),
        (403, b"", "denied"),
        (404, b"", "not_found"),
        (404, b'{"errors":[{"code":"DENIED"}]}', "not_found"),  # the status comes first
        (400, b'{"errors":[{"code":"NAME_INVALID","message":"x"}]}', "not_found"),
        (400, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', "rate_limited"),
        (400, b'{"errors":[{"code":"X"},{"code":"UNAUTHORIZED"}]}', "unauthorized"),
        (418, b"<html>", "unreachable"),
        (418, b'{"errors":"x"}', "unreachable"),
        (418, b"[" * 10_000, "unreachable"),
        (418, b"\xff", "unreachable"),
        (200 + 4, b"", "unreachable"),
    ],
)
def test_an_error_has_its_reason(context, liar, code, body, reason):
    """D8: a body may have any form, and never decides against the status."""
    liar.gives("manifests", body, status=code)
    with asked(context, liar) as it:
        assert failed(it.manifest, "1").reason == reason
    assert len(liar.requests) == 1


def test_nothing_of_a_body_is_passed_on_but_codes(context, liar):
    secret = b'{"errors":[{"code":"DENIED","message":"s3cret"},{"code":"s3cret"}]}'
    liar.gives("manifests", secret, status=403)
    with asked(context, liar) as it:
        error = failed(it.manifest, "1")
    assert "s3cret" not in error.detail + error.private
    assert error.private.endswith("/v2/a/b/manifests/1 answered 403 DENIED")


def test_an_endless_error_is_read_to_64_kib(context, liar):
    def flood(it):
        it.raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000000000\r\n\r\n")
        while not it.liar.stopped.is_set():
            it.raw(b" " * 2**16)

    liar.on("manifests", flood)
    with asked(replace(context, step_seconds=20), liar) as it:
        assert quickly(failed, it.manifest, "1").reason == "denied"


def test_a_server_that_speaks_something_else(context, liar):
    def ssh(it):
        it.raw(b"SSH-2.0-" + b"x" * 50_000 + b"\r\n\r\n")
        it.close_connection = True

    liar.on("", ssh)
    with asked(context, liar) as it:
        error = failed(it.manifest, "1")
    assert error.reason == "unreachable"
    assert "SSH-2.0-" in error.private and len(error.private) < 400


def test_warnings_are_shown_once_and_change_nothing(context, liar, caplog):
    """D10"""
    liar.gives("manifests", MANIFEST, Warning='299 - "move\x1b[31m away"')
    with asked(context, liar) as it:
        it.manifest("1")
        it.manifest("2")
    (said,) = [one for one in caplog.messages if "warns" in one]
    assert "move" in said and "\x1b" not in said


# --- patience ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(context, liar, code):
    liar.on("manifests", in_turn(status(code), status(code), lambda it: it.send(200, MANIFEST)))
    with asked(context, liar) as it:
        assert it.manifest("1").data == MANIFEST
    assert len(liar.requests) == 3


@pytest.mark.parametrize(
    ("code", "reason"), [(429, "rate_limited"), (500, "unreachable"), (503, "unreachable")]
)
def test_what_does_not_pass_is_an_error_after_four_times(context, liar, code, reason):
    liar.on("manifests", status(code))
    with asked(context, liar) as it:
        assert failed(it.manifest, "1").reason == reason
    assert len(liar.requests) == 4


def test_a_connection_that_breaks_is_made_again(context, liar):
    def broken(it):
        it.send(200, MANIFEST[:5], length=len(MANIFEST))

    def gone(it):
        it.close_connection = True

    liar.on("manifests", in_turn(gone, broken, lambda it: it.send(200, MANIFEST)))
    with asked(context, liar) as it:
        assert it.manifest("1").data == MANIFEST


def test_retry_after_is_waited_for(context, liar):
    liar.on("manifests", in_turn(status(429, Retry_After="1"), lambda it: it.send(200, MANIFEST)))
    begun = time.monotonic()
    with asked(context, liar) as it:
        it.manifest("1")
    assert 1 <= time.monotonic() - begun < 10


@pytest.mark.parametrize("code", [429, 503])
def test_who_says_hours_is_not_waited_for(context, liar, code):
    liar.on("manifests", status(code, Retry_After="3600"))
    with asked(context, liar) as it:
        failed(it.manifest, "1")
    assert len(liar.requests) == 1


def test_many_who_are_limited_do_not_come_back_together(context, liar):
    """D9: after a 429 one asks; the others follow when it was answered."""
    storm = threading.Barrier(4)
    moments: list[float] = []

    def answer(it):
        with liar.lock:
            moments.append(time.monotonic())
            number = len(moments)
        if number <= 4:
            storm.wait()
            it.send(429, b"", {"Retry-After": "1"})
        else:
            time.sleep(0.2 if number == 5 else 0)
            it.send(200, MANIFEST)

    liar.on("manifests", answer)
    with asked(context, liar) as it, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: it.manifest(str(n)), range(4)))
    assert len(found) == 4 and len(moments) == 8
    probe, *others = moments[4:]
    assert probe - moments[3] >= 0.9
    assert all(one - probe >= 0.19 for one in others)


# --- limits of time ------------------------------------------------------------------------------


def slowly(head: bytes):
    return lambda it: it.drip(head, 0.05)


def quickly(call, *args, seconds: float = 4.0):
    begun = time.monotonic()
    try:
        return call(*args)
    finally:
        assert time.monotonic() - begun < seconds


@pytest.mark.parametrize("what", ["silence", "the head", "the body", "the connection"])
def test_a_question_ends_with_its_time(context, liar, what):
    """No way to send bytes slowly keeps an import for longer than a step may take."""
    dripping = {
        "silence": lambda it: it.liar.stopped.wait(20),
        "the head": slowly(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000),
        "the body": slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999),
        "the connection": slowly(b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    }
    liar.on("manifests", dripping[what])
    with asked(replace(context, step_seconds=1), liar) as it:
        assert quickly(failed, it.manifest, "1").reason == "unreachable"


def test_a_blob_that_drips_is_too_late(context, liar):
    liar.on("blobs", slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999))
    late = pytest.raises(ImportTimeout, match="within 1 seconds")
    with asked(replace(context, step_seconds=1), liar) as it, late:
        quickly(whole, it, 9999)


def test_a_tls_handshake_that_never_ends(context, liars):
    """The listener takes the connection, and nobody answers the ClientHello."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"localhost:{silent.getsockname()[1]}"
        with asked(replace(context, allowed=(host,), step_seconds=1), host) as it:
            assert quickly(failed, it.manifest, "1").reason == "unreachable"


def test_a_resolver_that_never_answers(context, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **rest: ended.wait(20) and [])
    with asked(replace(context, step_seconds=1), "registry.example") as it:
        assert quickly(failed, it.manifest, "1").reason == "unreachable"
    ended.set()


@pytest.mark.parametrize("what", ["silence", "drops", "a flood"])
@pytest.mark.parametrize("tls", [False, True])
def test_who_closes_it_wakes_those_who_read(context, liar, liars, tmp_path, tls, what):
    """As an import that failed does while other layers come. No bytes that are not the blob's."""
    made = certificates(tmp_path)
    held = liars((made.key, made.certificate)) if tls else liar
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"

    def flood(it):
        it.raw(body)
        while not it.liar.stopped.is_set():
            it.raw(b" " * 2**20)

    answers = {
        "silence": lambda it: it.liar.stopped.wait(20),
        "drops": slowly(body + b" " * 1000),
        "a flood": flood,
    }
    held.on("blobs", answers[what])
    came = [bytearray() for _ in range(4)]

    def read(number):
        for piece in it.blob(DIGEST, 10**9):
            came[number] = bytearray(piece)
            assert not piece.strip(b" ")

    context = replace(context, allowed=(held.host,), ca_file=made.authority)
    with asked(context, held) as it, ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(read, number) for number in range(4)]
        while len(held.requests) < 4 or (what == "a flood" and not all(came)):
            time.sleep(0.01)
        it.close()
        begun = time.monotonic()
        assert all(isinstance(one.exception(10), PullFailed) for one in reading)
        assert time.monotonic() - begun < 10
        assert failed(it.manifest, "1").reason == "unreachable"
    assert len(held.requests) == 4
    assert it._transport._backend._open == set()


# --- blobs ---------------------------------------------------------------------------------------


def test_a_blob(context, liar):
    liar.on("blobs", ranged(BLOB))
    with asked(context, liar) as it:
        assert whole(it) == BLOB
        assert whole(it, offset=len(BLOB) - 1) == BLOB[-1:]
        assert whole(it, offset=len(BLOB)) == b""
    assert liar.sent("range") == ["", f"bytes={len(BLOB) - 1}-"]
    assert liar.requests[0].headers["accept-encoding"] == "identity"


def test_a_blob_goes_on_where_it_broke_off(context, liar):
    liar.on("blobs", in_turn(ranged(BLOB, 3_000_000), ranged(BLOB, 3_000_000), ranged(BLOB)))
    with asked(context, liar) as it:
        assert whole(it) == BLOB
    first, second, third = liar.sent("range")
    assert first == ""
    # What was on its way in httpcore's and the kernel's buffers may be asked for again.
    assert [int(one.strip("bytes=-")) for one in (second, third)] == [3_000_000, 6_000_000]


def test_a_blob_over_many_bad_connections(context, liar):
    """Each brings a megabyte: that is progress, however often."""
    liar.on("blobs", ranged(BLOB, 2**20))
    with asked(context, liar) as it:
        assert whole(it) == BLOB
    assert len(liar.requests) == 10


def test_a_blob_that_always_breaks_at_the_same_place(context, liar):
    rest = {"Content-Range": f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"}
    liar.on(
        "blobs",
        in_turn(
            lambda it: it.send(200, BLOB[:1000], length=len(BLOB)),
            lambda it: it.send(206, b"", rest, length=len(BLOB) - 1000),
        ),
    )
    with asked(context, liar) as it:
        assert failed(whole, it).reason == "corrupt"
    assert len(liar.requests) == 4


@pytest.mark.parametrize(
    "answer",
    [
        lambda it: it.send(200, BLOB),  # a server that knows no ranges
        status(416),
        lambda it: it.send(206, BLOB[5:], {"Content-Range": f"bytes 5-9/{len(BLOB)}"}),
        lambda it: it.send(206, BLOB, {"Content-Range": f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}"}),
        lambda it: it.send(206, BLOB[9:], {"Content-Range": "bytes 9-9999999/9999999999"}),
        lambda it: it.send(206, BLOB[9:]),
    ],
    ids=["200", "416", "another end", "from the front", "another size", "no range"],
)
def test_a_range_that_is_not_what_was_asked_for_begins_again(context, liar, answer):
    """D7: what is known is skipped then, so the caller's bytes stay in order."""
    liar.on("blobs", lambda it: answer(it) if "range" in it.seen.headers else it.send(200, BLOB))
    with asked(context, liar) as it:
        assert whole(it, offset=4_000_000) == BLOB[4_000_000:]


@pytest.mark.parametrize("code", [206, 416])
def test_a_part_that_nobody_asked_for(context, liar, code):
    liar.on("blobs", lambda it: it.send(code, BLOB[:10]))
    with asked(context, liar) as it:
        assert failed(whole, it).reason in ("corrupt", "unreachable")


@pytest.mark.parametrize("length", [len(BLOB) - 1, len(BLOB) + 1, 0, 10**15])
def test_a_length_that_is_not_the_promised_one_is_corrupt(context, liar, length):
    liar.on("blobs", lambda it: it.send(200, BLOB[:100], length=length))
    with asked(context, liar) as it:
        assert failed(whole, it).reason == "corrupt"
    assert len(liar.requests) == 1


def chunked(data: bytes, extra: bytes = b"", end: bytes = b"0\r\n\r\n"):
    def answer(it):
        it.send_response(200)
        it.send_header("Transfer-Encoding", "chunked")
        it.end_headers()
        for piece in (data, extra):
            if piece:
                it.raw(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        it.raw(end)
        it.close_connection = True

    return answer


def test_never_a_byte_beyond_the_promised_size(context, liar):
    liar.on("blobs", chunked(BLOB, b"!"))
    got = bytearray()
    with asked(context, liar) as it, pytest.raises(PullFailed) as caught:
        for piece in it.blob(DIGEST, len(BLOB)):
            got += piece
    assert caught.value.reason == "corrupt" and len(got) <= len(BLOB)
    assert bytes(got) == BLOB[: len(got)]


def test_a_blob_without_an_announced_length(context, liar):
    liar.on("blobs", chunked(BLOB))
    with asked(context, liar) as it:
        assert whole(it) == BLOB


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b""], ids=["ended", "broken off"])
def test_too_few_bytes_are_corrupt_in_the_end(context, liar, end):
    liar.on("blobs", chunked(BLOB[:1000], end=end))
    with asked(context, liar) as it:
        assert failed(whole, it).reason == "corrupt"


def test_a_reader_that_stops_closes_the_connection(context, liar):
    liar.on("blobs", ranged(BLOB))
    with asked(context, liar) as it:
        pieces = it.blob(DIGEST, len(BLOB))
        assert next(pieces)
        pieces.close()
        assert it._transport._backend._open == set()
        assert whole(it) == BLOB


def test_an_address_that_does_not_answer_is_not_the_only_one(context, liar, monkeypatch):
    """The liar listens on 127.0.0.1 alone; another address of its name refuses."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, liar.port))
        for address in ("127.0.0.2", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    liar.gives("manifests", MANIFEST)
    with asked(context, liar) as it:
        assert it.manifest("1").data == MANIFEST
        found.pop()
        monkeypatch.setattr(registry, "ATTEMPTS", 1)
    with asked(context, liar) as it:
        error = failed(it.manifest, "1")
    assert error.reason == "unreachable" and "127.0.0.2" in error.private


def test_four_blobs_at_once(context, liar):
    liar.on("blobs", ranged(BLOB))
    with asked(context, liar) as it, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: whole(it), range(4))) == [BLOB] * 4


def test_a_connection_is_used_again(context, liar):
    ports = set()

    def answer(it):
        ports.add(it.client_address[1])
        it.send(200, MANIFEST if "manifests" in it.path else BLOB)

    liar.on("", answer)
    with asked(context, liar) as it:
        for number in range(5):
            it.head(str(number))
            it.manifest(str(number))
            assert whole(it) == BLOB
            failed(it.manifest, Digest(digest_of(b"")))
        assert len(it._transport._backend._open) == 1
    assert len(ports) == 1
    assert it._transport._backend._open == set()


def test_a_connection_that_the_registry_ended_meanwhile(context, liar, monkeypatch):
    def answer(it):
        it.send(200, MANIFEST)
        it.close_connection = True  # without saying so

    liar.on("manifests", answer)
    monkeypatch.setattr(registry, "ATTEMPTS", 1)
    with asked(context, liar) as it:
        it.manifest("1")
        time.sleep(0.2)
        it.manifest("2")
    assert len(liar.requests) == 2


def test_the_questions_have_their_own_time(context, liar):
    assert registry.MIRROR_SECONDS < registry.ASK_SECONDS
    with asked(replace(context, step_seconds=7), liar) as it:
        assert it._seconds(registry.ASK_SECONDS) == 7
    assert throttle.LONGEST < registry.ASK_SECONDS
