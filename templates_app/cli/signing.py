"""``coppice tpl sign``, ``statement``, ``signed``: what is done with keys is done here, locally.

The secret key is read, used and forgotten in this process; what goes to the server is the
signature. The signature covers the exact bytes that the server serves as the statement, so before
signing it is checked that they are about the template that was named, and shown what they say.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from templates_app.cli import gate
from templates_app.cli.client import Failure, path
from templates_app.cli.events import about
from templates_app.cli.output import Document, clean, many, pick, shown
from templates_app.cli.session import (
    MAX_FILE,
    NAME,
    Session,
    json_option,
    pass_session,
    read_file,
)
from templates_app.errors import CoppiceError, Exit


def statement_of(session: Session, name: str) -> tuple[bytes, list[tuple[str, str]]]:
    """The exact bytes to sign, and what they say. Failure ``statement_wrong``."""
    text = session.api.get_bytes(path("templates", name, "statement"))
    try:
        # Not a key twice: whoever reads the statement later could see the other value.
        document: Any = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        _wrong("it is not JSON that can be read in one way")
    subjects = pick(document, "subject")
    parameters = pick(document, "predicate.buildDefinition.externalParameters")
    # A server that serves another template's statement must not get a signature over it.
    alone = isinstance(subjects, list) and len(subjects) == 1
    if not alone or not pick(subjects[0], "name") == pick(parameters, "name") == name:
        _wrong(f"it is not about {name} alone")
    known = parameters if isinstance(parameters, dict) else {}
    said = [
        ("statement", f"sha256:{hashlib.sha256(text).hexdigest()}"),
        ("subject", name),
        ("tree", f"sha256:{shown(pick(subjects[0], 'digest.sha256'))}"),
        *((clean(key), shown(value)) for key, value in sorted(known.items()) if key != "name"),
    ]
    for one in many(document, "predicate.buildDefinition.resolvedDependencies"):
        which = shown(pick(one, "name") or pick(one, "uri"))
        said.append((which, f"sha256:{shown(pick(one, 'digest.sha256'))}"))
    return text, said


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _wrong(why: str) -> NoReturn:
    raise Failure(
        "statement_wrong",
        f"The server's statement is not to be signed: {why}.",
        next_step="Find out what answers at COPPICE_URL.",
    )


@click.command(short_help="Sign a template's statement.")
@click.argument("name", type=NAME)
@click.option(
    "--key",
    envvar="COPPICE_SIGN_PRIVKEY",
    metavar="FILE",
    help="signify's secret key, - for stdin. Without it: COPPICE_SIGN_PRIVKEY.",
)
@click.option("--passphrase-stdin", is_flag=True, help="Read the key's passphrase from stdin.")
@click.option(
    "--signature", metavar="FILE", help="Upload this .sig file, made elsewhere; - for stdin."
)
@json_option
@pass_session
def sign(
    session: Session, name: str, key: str | None, passphrase_stdin: bool, signature: str | None
) -> None:
    """Sign the statement of NAME's current generation, and hand the signature in.

    The secret key stays here: only the signature is sent. To sign on another machine:
    coppice tpl statement NAME > s.json, there signify -S -s key.sec -m s.json, here --signature.

    \b
    Example:
      coppice tpl sign fbsd14-min --key coppice.sec
    """
    if signature is not None:
        body = text_of(signature)
    elif key is None:
        raise click.UsageError("Give --key FILE, COPPICE_SIGN_PRIVKEY or --signature FILE.")
    elif key == "-" and passphrase_stdin:
        raise click.UsageError("Key and passphrase cannot both come from stdin.")
    else:
        body = _sign_here(session, name, key, passphrase_stdin)
    answer = session.api.post(path("templates", name, "signatures"), {"signature": body})
    if session.out.as_json:
        session.out.json(answer)
        return
    words = {"template": "template", "key": "keyLabel", "keyid": "keyId"}
    facts = [f"{word}={shown(pick(answer, at))}" for word, at in words.items()]
    session.out.line(f"{' '.join(facts)} statement={shown(pick(answer, 'statementDigest'))}")


def _sign_here(session: Session, name: str, key: str, passphrase_stdin: bool) -> str:
    # Imported here: cryptography takes longer to load than all else, and only signing needs it.
    from templates_app.trust import signify

    secret = session.read_secret(key, "secret key")
    signify.needs_passphrase(secret)  # what is no key is refused before the server is asked
    text, said = statement_of(session, name)
    session.out.say("Signing:")
    width = max(len(word) for word, _value in said)
    for word, value in said:
        session.out.say(f"  {word:<{width}}  {value}")
    passphrase = passphrase_for(secret, passphrase_stdin)
    file_name = "" if key == "-" else Path(key).name  # for the signature's comment
    return signify.SecretKey.load(secret, passphrase, file_name=file_name).sign(text)


def passphrase_for(secret: str, from_stdin: bool) -> bytes | None:
    """The passphrase of this secret key, asked for or read; None where it has none."""
    from templates_app.trust.signify import needs_passphrase

    if not needs_passphrase(secret):
        return None
    if from_stdin:
        return sys.stdin.buffer.readline(MAX_FILE).rstrip(b"\r\n")
    try:
        # Asked on the terminal itself: stdin may be what the key comes from.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise click.UsageError(
            "The key has a passphrase and there is no terminal: give --passphrase-stdin."
        ) from None
    typed = click.prompt("Passphrase", hide_input=True, err=True, default="", show_default=False)
    return str(typed).encode("utf-8", "surrogateescape")


def text_of(name: str) -> str:
    """A small file's text, or stdin's for ``-``. Failure ``file_unusable``."""
    content, _mode = read_file(name)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure("file_unusable", f"{name} is not a file of signify.") from None


@click.command(short_help="The exact bytes to sign.")
@click.argument("name", type=NAME)
@json_option
@pass_session
def statement(session: Session, name: str) -> None:
    """Write the statement of NAME's current generation to stdout: the exact bytes to sign.

    It is JSON as it is, with and without --json.

    \b
    Example:
      coppice tpl statement fbsd14-min > s.json && signify -S -s key.sec -m s.json
    """
    text = session.api.get_bytes(path("templates", name, "statement"))
    if session.out.out.is_terminal:
        # To be looked at. Only a file or a pipe must have the bytes that are signed.
        session.out.line(clean(text.decode("utf-8", "backslashreplace")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


@click.command(short_help="Is it signed by a trusted key? By this one?")
@click.argument("name", type=NAME)
@click.option("--key", metavar="FILE", help="A .pub file of signify, - for stdin: check it here.")
@json_option
@pass_session
def signed(session: Session, name: str, key: str | None) -> None:
    """Check that NAME is signed: exit 0 if it is, 5 if not.

    Without --key the server checks, with the keys that it trusts. With --key the signatures in the
    log are checked here, with that key and no trust in the server's word.

    \b
    Example:
      coppice tpl signed fbsd14-min --key coppice.pub
    """
    decision = gate.decision_of(session, name)
    is_signed = pick(decision, "signed") is True
    shown_decision: Document = decision
    if key is not None:
        check = _check_here(session, name, key)
        is_signed = check["passed"]
        shown_decision = {**decision, "checks": [*many(decision, "checks"), check]}
    if session.out.as_json:
        session.out.json(shown_decision)
    else:
        gate.show(session, name, shown_decision)
    if not is_signed:
        click.get_current_context().exit(int(Exit.REFUSED))


def _check_here(session: Session, name: str, key: str) -> dict[str, Any]:
    """One more check, made here: does a logged signature over the statement verify by ``key``?"""
    from templates_app.trust.signify import PublicKey

    public = PublicKey.parse(text_of(key))
    text, _said = statement_of(session, name)
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    reasons = []
    for signature in _signatures_over(about(session, name), digest):
        try:
            public.verify(text, signature)
        except CoppiceError as error:
            reasons.append(error.detail)
        else:
            return {
                "name": "verified_here",
                "passed": True,
                "reason": f"The signature by {key} verifies over {digest}.",
                "code": None,
                "nextStep": None,
            }
    return {
        "name": "verified_here",
        "passed": False,
        "reason": "; ".join(reasons) or f"The log has no signature over {digest}.",
        "code": "not_signed",
        "nextStep": f"Sign it with that key: coppice tpl sign {name}",
    }


def _signatures_over(events: Sequence[Any], digest: str) -> list[str]:
    """Those that the log has over this statement, and that were not withdrawn."""
    found = {}
    for event in events:
        if pick(event, "data.statementDigest") != digest:
            continue
        if pick(event, "type") == "signed":
            found[pick(event, "position")] = str(pick(event, "data.signature"))
        elif pick(event, "type") == "signature-withdrawn":
            found.pop(pick(event, "data.signedPosition"), None)
    return list(found.values())
