"""The reader's process: decompresses, checks, parses, and has the model decide.

All bytes of an image are parsed here and nowhere else, in a process that has an empty directory for
its root, no network, no capability, and two descriptors: the pipe to the writer, and the socket to
the server, through which the layers' descriptors come. Started by :mod:`crew` as a fresh
interpreter, with one argument: JSON, what it is to know.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from templates_app.errors import PullFailed
from templates_app.sources.native import codecs, tar, wire
from templates_app.sources.native.confine import Ceiling, confine
from templates_app.sources.native.entry import Entry
from templates_app.sources.native.failures import told
from templates_app.sources.native.limits import Limits
from templates_app.sources.native.model import Tree
from templates_app.sources.native.operations import Do
from templates_app.sources.native.wire import Say

_PROGRESS_SECONDS = 0.25
_LOOK = 256  # entries between two looks at the clock


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    with socket.socket(fileno=given["control"]) as control:
        try:
            missing = confine(
                given["root"],
                parent=given["parent"],
                ceiling=Ceiling(**given["ceiling"]),
                capabilities=(),
                nobody=True,
            )
            encoder = wire.Encoder(wire.sender(given["pipe"]))
            _Reader(given, control, encoder, missing).work()
        except wire.Broken as error:
            # Whoever is gone has said why, or the server sees that it is.
            print(error, file=sys.stderr, flush=True)
        except BaseException as error:  # noqa: BLE001 - all of it is for the server to judge
            wire.say(control, Say.FAILED, told(error))


@dataclass(slots=True)
class _Reader:
    given: dict[str, Any]
    control: socket.socket
    encoder: wire.Encoder
    missing: list[str]
    findings: list[str] = field(default_factory=list)  # of archives, over all layers
    entries: int = 0  # of the layer, so far
    tick: float = 0.0

    def work(self) -> None:
        limits = Limits(**self.given["limits"])
        left_out = self.given["left_out"]
        what, body, fd = wire.hear(self.control)
        if what == Say.KEPT:
            tree = Tree.restore(body, limits, left_out)
            tree.bytes = self.given["content_bytes"]
            what, body, fd = wire.hear(self.control)
        else:
            tree = Tree(limits, left_out)
        if what == Say.LAST:  # an image without layers
            tree.begin()
            self._end_layer(tree, 0, tell=True)
        while what == Say.LAYER:
            layer = json.loads(body)
            with open(fd, "rb", buffering=0) as blob:  # noqa: PTH123 - a descriptor
                self._layer(tree, layer, codecs.Layer(blob, layer["media_type"], limits), limits)
            what, body, fd = wire.hear(self.control)
        wire.hear(self.control)  # the server ends us: an end before that is a failure

    def _layer(
        self, tree: Tree, layer: dict[str, Any], stream: codecs.Layer, limits: Limits
    ) -> None:
        number = layer["layer"]
        self.entries = 0
        archive = tar.Reader(stream, limits)
        tree.begin()
        for entry in archive:
            self._entry(tree, entry, archive)
            self.entries += 1
            if not self.entries % _LOOK:
                self._progress(number)
        if stream.diff_id != layer["diff_id"]:
            raise PullFailed(
                f"Layer {number + 1} of the image is not what its config says.",
                reason="corrupt",
                private=f"{stream.diff_id}, {layer['diff_id']} was promised",
            )
        self.findings += archive.findings
        self._end_layer(tree, number, tell=layer["tell"])

    def _end_layer(self, tree: Tree, number: int, *, tell: bool) -> None:
        for operation in tree.end():
            self.encoder.add(operation)
        self.encoder.stop(number)
        wire.say(self.control, Say.READ, {"layer": number, "entries": self.entries})
        if tell:
            said = {
                "layer": number,
                "entries": tree.entries,
                "bytes": tree.bytes,
                "findings": [*tree.findings, *self.findings],
                "missing": self.missing,
            }
            wire.say(self.control, Say.TREE, said)
            wire.say(self.control, Say.MANIFEST, b"".join(tree.manifest()))

    def _entry(self, tree: Tree, entry: Entry, archive: tar.Reader) -> None:
        for operation in tree.add(entry):
            if operation[0] != Do.FILE:
                self.encoder.add(operation)
                continue
            whole = archive.small()
            self.encoder.file(operation, whole)
            if whole is not None:
                tree.content(hashlib.sha256(whole).hexdigest())
                continue
            digest = hashlib.sha256()
            for part in archive.parts():
                digest.update(part)
                self.encoder.data(part)
            tree.content(digest.hexdigest())

    def _progress(self, number: int) -> None:
        now = time.monotonic()
        if now >= self.tick:
            self.tick = now + _PROGRESS_SECONDS
            wire.say(self.control, Say.PROGRESS, {"layer": number, "entries": self.entries})
