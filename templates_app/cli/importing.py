"""``coppice tpl import``, ``import-oci`` and ``progress``: start an import, and follow one.

The server answers an import's POST when the import has ended, which can be an hour later. So the
POST waits in a thread while this one asks how far the import is. The server's answer is the truth;
where it is lost (Ctrl-C, a proxy's time limit, a broken connection), the import is not: the server
is asked what became of it.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from typing import Any

import click

from templates_app.cli.client import INTERRUPTED, Api, Failure, exit_status, path
from templates_app.cli.output import Document, many, moment, pick, shown
from templates_app.cli.progress import Display, amount, display, layer_name, layer_text, layers
from templates_app.cli.session import NAME, Session, json_option, pass_session
from templates_app.errors import MalformedReference
from templates_app.names import Reference, human_size

PERIOD = 0.5  # seconds between two looks at an import
POLL_READ = 10.0  # seconds until one look is given up
SETTLE = 3.0  # seconds in which a lost import must show up on the server
LATE = 10.0  # seconds that the answer may come after the end of the import
GONE = 120.0  # seconds without any answer until waiting is given up

_SCHEME = re.compile(r"[a-z][a-z0-9-]*:")


def source_of(reference: str) -> str:
    """``reference`` with its scheme. What is no registry reference goes on as it was written.

    The server decides what it takes (and records what it refuses); here only ``oci:`` is added,
    where a reference stands alone. ``localhost:5000/x`` looks like a scheme, but is a reference.
    """
    try:
        Reference.parse(reference)
    except MalformedReference:
        return reference if _SCHEME.match(reference) else f"oci:{reference}"
    return f"oci:{reference}"


class Attempt:
    """One POST of an import, in a thread of its own."""

    def __init__(self, api: Api, name: str, source: str, force: bool) -> None:
        self.api = api
        self.name = name
        self.request_id = uuid.uuid4().hex
        self.before = _identity(last_import(api, name))
        self.seen: str | None = None  # the identity of the import that ran while we waited
        self.answered = threading.Event()
        self.answer: Document | None = None
        self.error: BaseException | None = None
        self._body: dict[str, Any] = {"name": name, "from": source}
        if force:
            self._body["force"] = True
        # A daemon: Ctrl-C must end the command although the answer may be an hour away.
        self._thread = threading.Thread(target=self._post, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _post(self) -> None:
        try:
            self.answer = self.api.post(
                path("templates"), self._body, patient=True, request_id=self.request_id
            )
        except BaseException as error:  # noqa: BLE001 - raised in the main thread, by result()
            self.error = error
        finally:
            self.answered.set()

    def result(self) -> Document:
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise TypeError("asked for the result of an import that has not ended")
        return self.answer

    def look(self) -> Document | None:
        """The state of our import on the server, or None while there is none that can be ours."""
        status = last_import(self.api, self.name)
        identity = _identity(status)
        if status is None or identity == self.before:
            return None
        if pick(status, "state") == "running":
            self.seen = identity
            return status
        # Another's import of this name can have ended meanwhile; the request's id tells.
        ours = pick(status, "event.meta.requestId") == self.request_id
        return status if ours or identity == self.seen else None


def last_import(api: Api, name: str) -> Document | None:
    """The running or last import of a name; None where there never was one."""
    try:
        status: Document = api.get(path("templates", name, "import"), read=POLL_READ)
    except Failure as failure:
        if failure.code == "template_not_found":
            return None
        raise
    return status


def _identity(status: Document | None) -> str | None:
    """What tells two imports of a name apart. One refused at once has no id, but a position."""
    if status is None:
        return None
    return str(pick(status, "importId") or f"at {pick(status, 'event.position')}")


# --- tpl import, tpl import-oci ------------------------------------------------------------------


@click.command("import", short_help="Make a template of an image, wherever it is.")
@click.argument("name", type=NAME)
@click.argument("source", metavar="FROM")
@click.option("--force", is_flag=True, help="Import beside the generation that is there.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
@pass_session
def import_any(session: Session, name: str, source: str, force: bool, quiet: bool) -> None:
    """Import FROM as template NAME, and wait until it is there. FROM is one of

    \b
      oci:HOST/NAME[:TAG][@DIGEST]          an image in a registry
      oci-archive:/PATH[:NAME][@DIGEST]     a file with an OCI layout: .tar, .txz, .tgz
      oci-layout:/PATH[:NAME][@DIGEST]      a directory with one
      docker-archive:/PATH[:NAME[:TAG]]     what "docker save" writes

    A PATH is one of the server's host, beneath one of its COPPICE_IMPORT_ROOTS. NAME is the image's
    in the file, where there are several. Success, failure and Ctrl-C are as of import-oci.

    \b
    Example:
      coppice tpl import fbsd14 oci-archive:/srv/images/FreeBSD-14.3-RELEASE-amd64-runtime.txz
    """
    _import(session, name, source, force, quiet)


@click.command("import-oci", short_help="Make a template of a container image.")
@click.argument("name", type=NAME)
@click.argument("reference", metavar="REF")
@click.option("--force", is_flag=True, help="Import beside the generation that is there.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
@pass_session
def import_oci(session: Session, name: str, reference: str, force: bool, quiet: bool) -> None:
    """Import the image REF as template NAME, and wait until it is there.

    REF is HOST/NAME[:TAG][@sha256:DIGEST], with or without "oci:" before it. On success stdout has
    one line: template=NAME snapshot=DATASET@base size=SIZE. Ctrl-C does not end an import that the
    server has begun; it says what became of it.

    \b
    Example:
      coppice tpl import-oci fbsd14-min quay.io/dougrabson/freebsd14-minimal:latest
    """
    _import(session, name, reference, force, quiet)


def _import(session: Session, name: str, source: str, force: bool, quiet: bool) -> None:
    attempt = Attempt(session.api, name, source_of(source), force)
    shown_by = display(session.out.err, name, quiet or session.out.as_json)
    try:
        with shown_by:
            attempt.start()
            template = wait(attempt, shown_by)
    except KeyboardInterrupt:
        raise interrupted(attempt) from None
    finish(session, template, quiet)


def wait(attempt: Attempt, show: Display) -> Document:
    """The template, when the import is done. Raises the server's refusal, or what was lost."""
    ended: float | None = None  # when the import was first seen to have ended
    silent: float | None = None  # since when nothing was answered
    while not attempt.answered.wait(PERIOD):
        try:
            status = attempt.look()
        except Failure as failure:
            silent = silent or time.monotonic()
            show.note(f"How far it is cannot be said now: {failure.detail}")
            if time.monotonic() - silent > GONE:
                raise lost(attempt, failure) from failure
            continue
        silent = None
        if status is None:
            continue
        if pick(status, "state") == "running":
            show.update(status)
            continue
        # Over, but no answer: it is on its way, or a connection died without a word.
        ended = ended or time.monotonic()
        if time.monotonic() - ended > LATE:
            return outcome(attempt, status)
    try:
        return attempt.result()
    except Failure as failure:
        if not failure.outcome_unknown:
            raise
        return resume(attempt, show, failure)


def resume(attempt: Attempt, show: Display, failure: Failure) -> Document:
    """The answer is lost: follow the import on the server to its end."""
    began = time.monotonic()
    answered = began
    told = False
    while True:
        try:
            status = attempt.look()
            answered = time.monotonic()
        except Failure as again:
            if time.monotonic() - answered > (GONE if attempt.seen else SETTLE):
                raise lost(attempt, again) from failure
            time.sleep(PERIOD)
            continue
        if status is not None and pick(status, "state") != "running":
            return outcome(attempt, status)
        if status is None and time.monotonic() - began > SETTLE:
            # The server answers, and knows nothing of it: it was never begun.
            raise failure
        if status is not None:
            if not told:
                show.note(f"{failure.detail} The import goes on; following it.")
                told = True
            show.update(status)
        time.sleep(PERIOD)


def outcome(attempt: Attempt, status: Document) -> Document:
    """What the POST would have answered, from the import's last event."""
    if pick(status, "state") == "imported":
        template: Document = attempt.api.get(path("templates", attempt.name))
        return template
    raise failed(status)


def failed(status: Document) -> Failure:
    """An ``import-failed`` event as the failure that it records."""
    code = str(pick(status, "event.data.code") or "internal_error")
    detail = f"{pick(status, 'event.data.detail')} ({pick(status, 'event.data.stage')})"
    return Failure(
        code, detail, exit_status=exit_status(code, 0), next_step="coppice tpl history has it."
    )


def lost(attempt: Attempt, failure: Failure) -> Failure:
    return Failure(
        "server_lost",
        f"What became of the import of {attempt.name} is not known: {failure.detail}",
        next_step=f"When the server is back: coppice tpl progress {attempt.name}",
    )


def interrupted(attempt: Attempt) -> Failure:
    """What became of the import that somebody stopped waiting for: the server is asked."""
    name = attempt.name
    what, next_step = _whereabouts(attempt)
    return Failure(
        "stopped_waiting",
        f"Interrupted. {what}",
        next_step=next_step or f"coppice tpl progress {name}",
        exit_status=INTERRUPTED,
    )


def _whereabouts(attempt: Attempt) -> tuple[str, str]:
    """A sentence and a next step."""
    name = attempt.name
    until = time.monotonic() + SETTLE
    while True:
        if attempt.answered.is_set() and isinstance(attempt.error, Failure):
            if not attempt.error.outcome_unknown:
                return f"The import had failed: {attempt.error.detail}", attempt.error.next_step
        elif attempt.answered.is_set():
            return f"The import of {name} had just been done.", f"coppice tpl show {name}"
        try:
            status = attempt.look()
        except Failure as failure:
            return f"What became of the import of {name} is not known: {failure.detail}", ""
        match pick(status or {}, "state"):
            case "running":
                stage = shown(pick(status or {}, "stage"))
                return (
                    f"The import of {name} goes on on the server (now: {stage}).",
                    f"coppice tpl progress {name} --follow, then: coppice tpl show {name}",
                )
            case "imported":
                return f"The import of {name} is done.", f"coppice tpl show {name}"
            case "failed":
                return f"The import of {name} failed: {failed(status or {}).detail}", ""
        if time.monotonic() > until:
            return f"The server shows no import of {name} that this command began.", ""
        time.sleep(PERIOD)


def finish(session: Session, template: Document, quiet: bool) -> None:
    """The line that scripts read, and a word about what comes next."""
    if session.out.as_json:
        session.out.json(template)
        return
    name, snapshot, bytes_ = (pick(template, key) for key in ("name", "snapshot", "sizeBytes"))
    if not isinstance(bytes_, int) or not name or not snapshot:
        raise Failure("server_answer", "The server's answer is not a template.")
    session.out.line(f"template={shown(name)} snapshot={shown(snapshot)} size={human_size(bytes_)}")
    if quiet:
        return
    for finding in many(template, "findings"):
        session.out.warn(shown(finding))
    if pick(template, "signed") is not True:
        session.out.say(f"It is not signed. Sign it: coppice tpl sign {shown(name)}")


# --- tpl progress --------------------------------------------------------------------------------


@click.command(short_help="How far an import is.")
@click.argument("name", type=NAME)
@click.option("--follow", is_flag=True, help="Wait for its end, showing progress on stderr.")
@json_option
@pass_session
def progress(session: Session, name: str, follow: bool) -> None:
    """Show how far the running import of NAME is, or how the last one ended.

    Exits as import-oci would have: 0 while it runs or where it is done, else the failure's status.

    \b
    Example:
      coppice tpl progress fbsd14-min --follow
    """
    where = path("templates", name, "import")
    status = session.api.get(where, read=POLL_READ)
    if follow:
        with display(session.out.err, name, session.out.as_json) as show:
            while pick(status, "state") == "running":
                show.update(status)
                time.sleep(PERIOD)
                status = session.api.get(where, read=POLL_READ)
    if session.out.as_json:
        session.out.json(status)
    else:
        session.out.facts(_facts(name, status))
    if pick(status, "state") == "failed":
        click.get_current_context().exit(failed(status).exit_status)


def _facts(name: str, status: Document) -> list[tuple[str, str]]:
    at = {key: shown(pick(status, key)) for key in ("state", "importId", "actor", "stage")}
    facts = [("template", name), ("state", at["state"]), ("import", at["importId"])]
    if at["state"] == "running":
        begun = f"{moment(pick(status, 'startedAt'))} UTC by {at['actor']}"
        facts += [("begun", begun), ("stage", f"{at['stage']} {amount(status)}".strip())]
        all_ = layers(status)
        return facts + [(layer_name(one, len(all_)), layer_text(one)) for one in all_]
    ended = f"{moment(pick(status, 'event.recordedAt'))} UTC"
    facts.append(("ended", f"{ended}, begun by {at['actor']}"))
    facts.append(("event", shown(pick(status, "event.sentence"))))
    if at["state"] == "failed":
        facts.append(("code", shown(pick(status, "event.data.code"))))
        facts.append(("detail", shown(pick(status, "event.data.detail"))))
    return facts
