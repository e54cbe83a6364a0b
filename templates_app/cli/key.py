"""``coppice key``: the keys whose signatures count. Announcements are made here, locally."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import NAMES, Column, Document, clean, many, minute, pick, shown
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session
from templates_app.cli.signing import passphrase_for, text_of
from templates_app.errors import MalformedName
from templates_app.names import NameGlob, quote

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])
_STATES = {"trusted": "green", "compromised": "bold red"}


class KeyType(click.ParamType[str]):
    """A key's number or label: whatever it is, it becomes one part of an address."""

    name = "key"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not 0 < len(value) <= 64 or not value.isascii() or value in (".", ".."):
            raise MalformedName(f"{quote(value)} is not a key's number or label.", hint="")
        return str(value)


class GlobType(click.ParamType[str]):
    name = "pattern"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return NameGlob.parse(value).text


KEY = KeyType()

COLUMNS = (
    Column(name="label", at="label", least=NAMES),
    Column(name="key", at="keyId", title="number", rank=1),
    Column(name="state", at="state", style=lambda text: _STATES.get(text, "yellow")),
    Column(name="owner", at="owner", least=10, rank=2),
    Column(name="scope", at="scope", least=10, rank=3),
    Column(name="until", at="notAfter", show=minute, rank=4),
    Column(name="signatures", at="signatures", title="signed", right=True, rank=5),
    Column(name="directory", at="inDirectory", rank=6),
    Column(name="from", at="notBefore", show=minute, rank=7),
    Column(name="trusted", at="trustedAt", show=minute, rank=7),
    Column(name="by", at="trustedBy", rank=7),
    Column(name="since", at="revocation.since", right=True, rank=7),
    Column(name="position", at="position", right=True, rank=7),
    Column(name="public", at="publicKey", rank=7),
)
DEFAULT = ("label", "key", "state", "owner", "scope", "until", "signatures", "directory")


@click.group(short_help="Keys: whose signatures count, and for what.")
def key() -> None:
    """Keys: whose signatures count, for which templates, and until when."""


@key.command("list", short_help="All keys that are known.")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def list_(session: Session, listing: Listing) -> None:
    """List all keys by label: of the log, and of the server's directory of trusted keys.

    STATE is trusted, early, expired (by their dates), superseded or compromised (revoked).

    \b
    Example:
      coppice key list
    """
    rows = session.api.get(path("keys"), list)
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)


@key.command(short_help="One key, with its limits and its revocation.")
@click.argument("key_", metavar="KEY", type=KEY)
@json_option
@pass_session
def show(session: Session, key_: str) -> None:
    """Show one key, by its number or label.

    \b
    Example:
      coppice key show release-2026
    """
    found = session.api.get(path("keys", key_))
    if session.out.as_json:
        session.out.json(found)
    else:
        _show(session, found)


def _show(session: Session, found: Document) -> None:
    facts = [
        ("key", f"{shown(pick(found, 'label'))} ({shown(pick(found, 'keyId'))})"),
        ("state", shown(pick(found, "state"))),
        ("owner", shown(pick(found, "owner"))),
        ("scope", shown(pick(found, "scope"))),
        ("from", shown(pick(found, "notBefore"))),
        ("until", shown(pick(found, "notAfter"))),
        ("directory", shown(pick(found, "inDirectory"))),
        ("public", shown(pick(found, "publicKey"))),
        ("announced", f"by {pick(found, 'predecessor')}" if pick(found, "predecessor") else "-"),
        ("signatures", shown(pick(found, "signatures"))),
    ]
    if pick(found, "position"):
        by, at = shown(pick(found, "trustedBy")), shown(pick(found, "trustedAt"))
        facts.append(("trusted", f"{at} by {by}, event {shown(pick(found, 'position'))}"))
    if (revoked := pick(found, "revocation")) is not None:
        by, at = shown(pick(revoked, "revokedBy")), shown(pick(revoked, "revokedAt"))
        facts += [
            ("revoked", f"{at} by {by}, event {shown(pick(revoked, 'position'))}"),
            ("reason", shown(pick(revoked, "reason"))),
            ("refused", f"what was signed at position {shown(pick(revoked, 'since'))} or later"),
            ("note", shown(pick(revoked, "note"))),
        ]
    session.out.facts([(name, clean(value)) for name, value in facts])


@key.command(short_help="Let a key's signatures count.")
@click.argument("file", metavar="FILE.pub")
@click.option("--label", metavar="TEXT", help="Its name here. Without it: the file's.")
@click.option("--owner", metavar="TEXT", required=True, help="Who has the secret key.")
@click.option("--not-before", type=_MOMENT, metavar="DAY", help="Counts from then on (UTC).")
@click.option("--not-after", type=_MOMENT, metavar="DAY", help="Counts until then (UTC).")
@click.option(
    "--scope",
    type=GlobType(),
    multiple=True,
    metavar="PATTERN",
    help="Templates that it may sign: prod-*. Repeat it for more. Without it: all.",
)
@click.option("--predecessor", type=KEY, metavar="KEY", help="The key that announces this one.")
@click.option("--announcement", metavar="FILE", help="The predecessor's .sig file; - for stdin.")
@click.option("--announce-with", metavar="FILE", help="The predecessor's secret key: sign here.")
@click.option("--passphrase-stdin", is_flag=True, help="Read that key's passphrase from stdin.")
@json_option
@pass_session
def trust(
    session: Session,
    file: str,
    label: str | None,
    owner: str,
    not_before: datetime.datetime | None,
    not_after: datetime.datetime | None,
    scope: tuple[str, ...],
    predecessor: str | None,
    announcement: str | None,
    announce_with: str | None,
    passphrase_stdin: bool,
) -> None:
    """Trust the key in FILE.pub; or, where it is trusted already, give it these limits.

    To rotate: --predecessor with --announce-with OLD.sec, or with an --announcement that was signed
    elsewhere (coppice key announcement). Both keys count until the old one is revoked.

    \b
    Example:
      coppice key trust release-2026.pub --owner "Alice Adams" --not-after 2027-01-31
    """
    if announcement is not None and announce_with is not None:
        raise click.UsageError("Give --announcement or --announce-with, not both.")
    if (announcement or announce_with) and predecessor is None:
        raise click.UsageError("Say with --predecessor KEY whose announcement it is.")
    text = text_of(file)
    body: dict[str, Any] = {
        "publicKey": text,
        "label": label or Path(file).name.removesuffix(".pub"),
        "owner": owner,
    }
    if scope:
        body["scope"] = list(scope)
    for name, moment in (("notBefore", not_before), ("notAfter", not_after)):
        if moment is not None:
            body[name] = f"{moment.isoformat()}Z"
    if predecessor is not None:
        body["predecessor"] = predecessor
    if announce_with is not None:
        body["announcement"] = _announce(session, announce_with, text, passphrase_stdin)
    elif announcement is not None:
        body["announcement"] = text_of(announcement)
    made = session.api.post(path("keys"), body)
    if session.out.as_json:
        session.out.json(made)
        return
    words = {"key": "label", "keyid": "keyId", "scope": "scope"}
    session.out.line(" ".join(f"{word}={shown(pick(made, at))}" for word, at in words.items()))


def _announce(session: Session, secret_file: str, successor: str, passphrase_stdin: bool) -> str:
    from templates_app.trust import signify, succession  # as in signing.py: slow to load

    text = session.read_secret(secret_file, "secret key")
    passphrase = passphrase_for(text, passphrase_stdin)
    secret = signify.SecretKey.load(text, passphrase, file_name=Path(secret_file).name)
    new = signify.PublicKey.parse(successor)
    session.out.say(f"Announcing key {new.key_id} with key {secret.public_key.key_id}.")
    return secret.sign(succession.text(predecessor=secret.public_key, successor=new))


@key.command(short_help="The exact bytes that announce a key.")
@click.argument("file", metavar="NEW.pub")
@click.option("--predecessor", metavar="OLD.pub", required=True, help="The key that will sign.")
@json_option
@pass_session
def announcement(session: Session, file: str, predecessor: str) -> None:
    """Write what the key in OLD.pub signs to announce the one in NEW.pub. Asks no server.

    It is JSON as it is, with and without --json.

    \b
    Example:
      coppice key announcement new.pub --predecessor old.pub > next.json
      signify -S -s old.sec -m next.json
    """
    from templates_app.trust import signify, succession

    old, new = (signify.PublicKey.parse(text_of(name)) for name in (predecessor, file))
    sys.stdout.flush()
    sys.stdout.buffer.write(succession.text(predecessor=old, successor=new))
    sys.stdout.buffer.flush()


@click.command(short_help="Withdraw a key's signature.")
@click.argument("name", type=NAME)
@click.argument("key_", metavar="KEY", type=KEY)
@click.option("--note", default="", metavar="TEXT", help="Kept in the log: why.")
@click.option("--dry-run", "-n", is_flag=True, help="Only show what would be refused.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@json_option
@pass_session
def unsign(session: Session, name: str, key_: str, note: str, dry_run: bool, yes: bool) -> None:
    """Withdraw KEY's signature over the statement of NAME's current generation, for ever.

    KEY is the number or label of the key. Another key can sign it anew.

    \b
    Example:
      coppice tpl unsign fbsd14-min release-2026 --note "not the build that was meant"
    """
    where = path("templates", name, "signatures", key_)

    def ask(dry: bool) -> Document:
        answer: Document = session.api.delete(where, dryRun=dry, note=note or None)
        return answer

    done = _asked_first(
        session,
        ask,
        f"Withdraw the signature of {name} by {key_} for ever?",
        dry_run=dry_run,
        yes=yes,
    )
    if done is not None and not dry_run:
        session.out.say(f"Withdrew the signature (event {shown(pick(done, 'position'))}).")


@key.command(short_help="Let a key's signatures count no more.")
@click.argument("key_", metavar="KEY", type=KEY)
@click.option(
    "--reason",
    type=click.Choice(["superseded", "compromised"]),
    required=True,
    help="superseded: what it has signed stays. compromised: that is refused too.",
)
@click.option(
    "--since",
    type=click.IntRange(min=1),
    metavar="POSITION",
    help="Only with compromised: what was signed before this position of the log stays.",
)
@click.option("--note", default="", metavar="TEXT", help="Kept in the log: what has happened.")
@click.option("--dry-run", "-n", is_flag=True, help="Only show what would be refused.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@json_option
@pass_session
def revoke(
    session: Session,
    key_: str,
    reason: str,
    since: int | None,
    note: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Revoke a key, for ever, in every server process at once.

    Shows the templates that are not signed any more, and the live sandboxes that were launched from
    them, with who launched each. With --dry-run that is all.

    \b
    Example:
      coppice key revoke release-2026 --reason compromised --since 4711 --dry-run
    """
    if since is not None and reason != "compromised":
        raise click.UsageError("--since goes with --reason compromised.")
    body: dict[str, Any] = {"reason": reason, "note": note}
    if since is not None:
        body["since"] = since
    where = path("keys", key_, "revoke")

    def ask(dry: bool) -> Document:
        answer: Document = session.api.post(where, {**body, "dryRun": dry}, patient=True)
        return answer

    done = _asked_first(session, ask, f"Revoke key {key_} for ever?", dry_run=dry_run, yes=yes)
    if done is not None and not dry_run:
        event = shown(pick(done, "position"))
        session.out.say(f"Revoked key {shown(pick(done, 'label'))} (event {event}).")


def _asked_first(
    session: Session, ask: Callable[[bool], Document], question: str, *, dry_run: bool, yes: bool
) -> Document | None:
    """Show what it would change, and do it if that is wanted; the answer, None with --json."""
    if not dry_run and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run.")
        say_radius(session, ask(True), talk=True)
        if not click.confirm(question, err=True):
            session.out.say("Nothing was changed.")
            click.get_current_context().exit(1)
    done = ask(dry_run)
    if session.out.as_json:
        session.out.json(done)
        return None
    say_radius(session, done, talk=False)
    if dry_run:
        session.out.say("Nothing was changed: this was a dry run.")
    return done


def say_radius(session: Session, radius: Document, *, talk: bool) -> None:
    """Templates that are not signed any more, and what runs of them, one a line."""
    say = session.out.say if talk else session.out.line
    for one in many(radius, "templates"):
        what = "refused" if pick(one, "refused") is True else "unsigned"
        name, generation = shown(pick(one, "template")), shown(pick(one, "generation"))
        say(f"template  {name} generation {generation}: {what} ({shown(pick(one, 'code'))})")
    for one in many(radius, "sandboxes"):
        origin = f"{shown(pick(one, 'template'))} generation {shown(pick(one, 'generation'))}"
        by = f"{shown(pick(one, 'createdBy'))} at {minute(pick(one, 'createdAt'))}"
        say(f"sandbox   {shown(pick(one, 'id'))} of {origin}, launched by {by}")
    counts = len(many(radius, "templates")), len(many(radius, "sandboxes"))
    session.out.say("{} template(s) and {} live sandbox(es) are concerned.".format(*counts))
