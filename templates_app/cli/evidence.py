"""``coppice tpl evidence``: all about a template in one file, checked without Coppice."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from templates_app.cli.client import Failure, path
from templates_app.cli.session import GENERATION, At, Session, json_option, pass_session
from templates_app.names import human_size

TAR = "application/x-tar"


@click.command(short_help="All about a template in one file, for auditors.")
@click.argument("which", metavar="NAME[@GENERATION]", type=GENERATION)
@click.option("-o", "output", metavar="FILE", help="Without it: NAME.evidence.tar; - is stdout.")
@json_option
@pass_session
def evidence(session: Session, which: At, output: str | None) -> None:
    """Fetch statement, signatures, manifest, image and events with proofs, as a tar file.

    VERIFY.md in it says how an auditor checks it without Coppice and without a network. The same
    state of the template gives the same bytes. A file that is there is not overwritten.

    \b
    Example:
      coppice tpl evidence fbsd14-min -o fbsd14-min.evidence.tar
    """
    content = session.api.get_bytes(
        path("templates", which.name, "evidence"), kind=TAR, patient=True, generation=which.number
    )
    place = f"{which.name}.evidence.tar" if output is None else output
    if place == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        with Path(place).open("xb") as file:
            file.write(content)
    except OSError as error:
        why = f"{place} cannot be written: {error.strerror}."
        raise Failure("file_unusable", why, next_step="Name another one with -o.") from None
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if session.out.as_json:
        session.out.json({"file": place, "sizeBytes": len(content), "sha256": digest})
        return
    session.out.line(f"{place}\t{digest}")
    session.out.say(
        f"{human_size(len(content))}. next:  tar -xf {place}, then read VERIFY.md in it"
    )
