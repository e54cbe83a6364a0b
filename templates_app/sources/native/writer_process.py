"""The writer's process: confined to the directory that is filled, fed by the reader.

Started by :mod:`engine` as a fresh interpreter, with one argument: JSON, what it is to know.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
from typing import Any

from templates_app.sources.native import wire
from templates_app.sources.native.confine import (
    CHOWN,
    DAC_OVERRIDE,
    FOWNER,
    FSETID,
    MKNOD,
    SETFCAP,
    Ceiling,
    confine,
)
from templates_app.sources.native.failures import told
from templates_app.sources.native.wire import Say
from templates_app.sources.native.writer import Writer

_CAPABILITIES = (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP)


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    with socket.socket(fileno=given["control"]) as control:
        try:
            _work(given, control)
        except wire.Broken as error:
            # Whoever is gone has said why, or the server sees that it is.
            print(error, file=sys.stderr, flush=True)
        except BaseException as error:  # noqa: BLE001 - all of it is for the server to judge
            wire.say(control, Say.FAILED, told(error))


def _work(given: dict[str, Any], control: socket.socket) -> None:
    os.umask(0)  # the image's modes, whole
    privileged = os.geteuid() == 0
    missing = confine(
        given["root"],
        parent=given["parent"],
        ceiling=Ceiling(**given["ceiling"]),
        capabilities=_CAPABILITIES,
        nobody=False,
    )
    # The root directory by now, or where there may be none of our own, the working directory.
    writer = Writer(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), privileged)

    def acknowledge(layer: int) -> None:
        wire.say(
            control,
            Say.SETTLED,
            {
                "layer": layer,
                "written": writer.written,
                "skipped": dataclasses.asdict(writer.skipped),
                "missing": missing,
            },
        )
        if given["wait"]:
            what, _, _ = wire.hear(control)
            if what != Say.GO:
                raise wire.Broken(f"{what!r} is no answer")

    writer.run(wire.Frames(given["pipe"]).next, acknowledge)
