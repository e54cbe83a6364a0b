"""A registry that lies, stalls and breaks off, and whole imports from it: nothing is left over.

How the client meets each fault is tests/unit/test_registry.py and its neighbours; here is what an
operator sees of it: the error, within its time, and a host as it was. What a broken download has
brought so far stays in the blob cache for the next one, and nothing else does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy import images
from deploy.images import Document
from templates_app import sources
from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    NotAnImage,
    PullFailed,
    RegistryNotAllowed,
)
from templates_app.sources import hosts
from templates_app.sources.base import SourceContext
from tests import hostile
from tests.liars import Liar, Names, in_turn, ranged, status, to
from tests.registries import certificates

ID = hostile.id_of_import(0)
#: Of more than what a socket holds, so that who does not read it is noticed.
LAYERS = [
    images.layer([images.file("a", b"first")]),
    images.layer_of(images.tar([images.file("b", bytes(range(256)) * 8000)]), level=0),
]
IMAGE = images.image(LAYERS)
CONFIG, LARGE = IMAGE.blobs[0], LAYERS[1].blob


def serve(liar: Liar, image: Document = IMAGE) -> None:
    for name in ("1", image.digest):
        liar.gives(
            f"manifests/{name}$",
            image.data,
            Content_Type=image.media_type,
            Docker_Content_Digest=image.digest,
        )
    for blob in image.blobs:
        liar.on(images.sha256(blob), ranged(blob))


def at(blob: bytes) -> str:
    return images.sha256(blob)


def endless(it) -> None:
    it.send_response(200)
    it.send_header("Transfer-Encoding", "chunked")
    it.end_headers()
    while not it.liar.stopped.is_set():
        it.raw(b"100000\r\n" + bytes(2**20) + b"\r\n")


def another_body(it) -> None:
    """Of that size, and read long before its end comes: nothing like gzip."""
    it.send_response(200)
    it.send_header("Content-Length", str(len(LARGE)))
    it.end_headers()
    it.raw(bytes(len(LARGE) - 1))
    it.liar.stopped.wait(0.5)
    it.raw(b"x")


def drips(it) -> None:
    it.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + bytes(9999), 0.05)


def gives_range(header: str, body: bytes) -> Callable:
    """A first half, then for the rest a part with this Content-Range."""

    def rest(it) -> None:
        it.send(206, body, {"Content-Range": header})

    return in_turn(ranged(LARGE, len(LARGE) // 2), rest)


def inside(liar: Liar) -> str:
    """An address of the host that nobody allowed."""
    return f"https://127.0.0.2:{liar.port}/v2/secret"


def other(size: int) -> dict:
    layers = [images.describe(one.blob, one.media_type) for one in LAYERS]
    layers[1]["size"] = size
    return {"layers": layers}


@dataclass(frozen=True)
class Fault:
    name: str
    does: Callable[[Liar], None]
    error: type[CoppiceError] = PullFailed
    reason: str = ""
    stays: int = 0  # bytes that the next import goes on from
    within: int = 20  # seconds that a step may take


FAULTS = [
    # Digests and sizes.
    Fault("manifest-of-another-digest", lambda it: it.gives(
        f"manifests/{IMAGE.digest}$", IMAGE.data + b" ", Content_Type=IMAGE.media_type
    ), reason="corrupt"),
    Fault("config-of-other-bytes", lambda it: it.on(
        at(CONFIG), ranged(CONFIG[:-1] + b" ")
    ), reason="corrupt"),
    Fault("layer-of-other-bytes", lambda it: it.on(
        at(LARGE), ranged(LARGE[:-1] + b"x")
    ), reason="corrupt"),
    Fault("layer-is-another-body", lambda it: it.on(at(LARGE), another_body), reason="corrupt"),
    Fault("layer-is-smaller-than-said", lambda it: serve(
        it, images.image(LAYERS, manifest=other(len(LARGE) + 1))
    ), reason="corrupt"),
    Fault("layer-is-larger-than-said", lambda it: serve(
        it, images.image(LAYERS, manifest=other(len(LARGE) - 1))
    ), reason="corrupt"),
    # Bodies without end, and that end too early.
    Fault("endless-manifest", lambda it: it.on("manifests", endless), NotAnImage),
    Fault("endless-config", lambda it: it.on(at(CONFIG), endless), reason="corrupt"),
    Fault("endless-layer", lambda it: it.on(at(LARGE), endless), reason="corrupt"),
    Fault("layer-cut-off-for-ever", lambda it: it.on(
        at(LARGE), in_turn(ranged(LARGE, 1_000_000), ranged(LARGE, 0))
    ), reason="corrupt"),
    # Ranges.
    Fault("range-of-another-place", lambda it: it.on(
        at(LARGE), gives_range(f"bytes 0-9/{len(LARGE)}", bytes(10))
    ), reason="unreachable", stays=len(LARGE) // 2),
    Fault("range-of-another-size", lambda it: it.on(
        at(LARGE), gives_range(f"bytes {len(LARGE) // 2}-{len(LARGE)}/{len(LARGE) + 1}", bytes(10))
    ), reason="unreachable", stays=len(LARGE) // 2),
    Fault("range-of-other-bytes", lambda it: it.on(at(LARGE), in_turn(
        ranged(LARGE, len(LARGE) // 2), ranged(LARGE[:-1] + b"x")
    )), reason="corrupt"),
    Fault("range-that-cannot-be-had", lambda it: it.on(at(LARGE), in_turn(
        ranged(LARGE, len(LARGE) // 2), status(416)
    )), stays=len(LARGE) // 2),
    # Redirects and realms.
    Fault("redirect-to-the-inside", lambda it: it.on(
        at(LARGE), to(inside(it))
    ), RegistryNotAllowed),
    Fault("redirect-to-a-file", lambda it: it.on(
        at(LARGE), to("file:///etc/passwd")
    )),
    Fault("redirects-in-a-circle", lambda it: it.on(
        "blobs", lambda answer: answer.send(307, b"", {"Location": answer.path})
    ), reason="unreachable"),
    Fault("realm-on-the-inside", lambda it: it.on("", lambda answer: answer.send(401, b"", {
        "WWW-Authenticate": f'Bearer realm="{inside(it)}",service="x"'
    })), RegistryNotAllowed),
    Fault("realm-that-wants-a-realm", lambda it: it.on("", lambda answer: answer.send(401, b"", {
        "WWW-Authenticate": f'Bearer realm="http://{it.host}/token"'
    })), reason="unauthorized"),
    # Rates and times.
    Fault("limited-for-ever", lambda it: it.on("", status(429)), reason="rate_limited"),
    Fault("layers-limited-for-ever", lambda it: it.on(
        "blobs", status(429, Retry_After="0")
    ), reason="rate_limited"),
    Fault("limited-for-a-day", lambda it: it.on(
        "", status(429, Retry_After="86400")
    ), reason="rate_limited"),
    Fault("slow-manifest", lambda it: it.on("manifests", drips), reason="unreachable", within=2),
    Fault("slow-layer", lambda it: it.on(at(LARGE), drips), ImportTimeout, within=2),
    Fault("silent-layer", lambda it: it.on(
        at(LARGE), lambda answer: answer.connection.recv(1)
    ), ImportTimeout, within=2),
]  # fmt: skip


@pytest.fixture
def ground(liar: Liar, tmp_path: Path) -> hostile.Ground:
    """As it is when the registry runs, for that is in this process."""
    place = tmp_path / "hostile"
    place.mkdir()
    made = hostile.on_directory(place)
    made.prepare()
    return made


def imported(ground: hostile.Ground, context: SourceContext, host: str, within: int = 20) -> None:
    context = replace(context, state_dir=ground.state, step_seconds=within)
    context = replace(context, limits=replace(context.limits, seconds=within))
    source = sources.parse(f"oci:{host}/a/b:1", context)
    hostile.run(ground, source, ID, [])


def settled(ground: hostile.Ground) -> list[str]:
    """What is left over, once the registry's threads have noticed that nobody listens."""
    until = time.monotonic() + 20
    while (left := list(ground.disturbed(ID))) and time.monotonic() < until:
        time.sleep(0.05)
    return left


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_an_import_from_a_registry_that_lies_leaves_nothing(
    fault: Fault, ground: hostile.Ground, liar: Liar, context: SourceContext
) -> None:
    serve(liar)
    fault.does(liar)
    begun = time.monotonic()
    with pytest.raises(CoppiceError) as caught:
        imported(ground, context, liar.host, fault.within)
    assert time.monotonic() - begun < fault.within + 20
    assert isinstance(caught.value, fault.error), caught.value.private
    if fault.reason:
        assert caught.value.extra["reason"] == fault.reason, caught.value.private
    left = list((ground.state / "blobs").glob("*/*.part"))
    assert [path.stat().st_size for path in left] == ([fault.stays] if fault.stays else [])
    for path in left:
        path.unlink()
    assert settled(ground) == []


def test_without_a_fault_it_is_imported(
    ground: hostile.Ground, liar: Liar, context: SourceContext
) -> None:
    serve(liar)
    imported(ground, context, liar.host)
    assert ground.driver.snapshot("coppice/hostile-g1-" + ID)


def test_a_name_that_changes_its_mind_in_the_middle_of_an_import(
    context: SourceContext,
    liars: Callable[..., Liar],
    names: Names,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the manifest came from, nothing was wrong; the layers would come from the inside."""
    found = certificates(tmp_path, "registry.example")
    registry = liars((found.key, found.certificate))
    serve(registry)
    place = tmp_path / "hostile"
    place.mkdir()
    ground = hostile.on_directory(place)
    ground.prepare()
    # This test has no internet: of this host's addresses one is to be out there.
    monkeypatch.setattr(hosts, "is_public", lambda address: str(address) == "127.0.0.1")
    names["registry.example"] = ["127.0.0.1", "127.0.0.2"]
    context = replace(context, insecure=(), ca_file=found.authority)
    with pytest.raises(RegistryNotAllowed):
        imported(ground, context, registry.at("registry.example"))
    asked = " ".join(registry.targets())
    assert IMAGE.digest in asked and at(CONFIG) in asked and at(LARGE) not in asked
    assert settled(ground) == []
