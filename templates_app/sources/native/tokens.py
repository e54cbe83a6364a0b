"""What is sent as Authorization, to whom: challenges met with credentials (D5).

Credentials are for the registry that they stand under in the file, and for its token service if
that is of the same domain or one that the operator has named. Whoever else asks (the target of a
redirect) gets what an anonymous caller gets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

from templates_app.sources.credentials import Credentials
from templates_app.sources.hosts import is_named
from templates_app.sources.native import challenge
from templates_app.sources.native.challenge import Challenge
from templates_app.sources.native.client import Client
from templates_app.sources.native.network import Deadline, Failure, TimeUp
from templates_app.sources.native.transport import Answer, Url

MAX_TOKEN = 1024 * 1024  # bytes of a token service's answer; c/image's limit
TOKEN_SECONDS = 60.0  # for a token, also where the time of a whole blob is left
_LEAST_SECONDS = 60  # that a token is good for where the service says less, or nothing
_AHEAD = 0.9  # of its time, after which it is renewed

#: Second-level names under which anybody registers: example.co.uk is the domain, not co.uk.
_SHARED_SECOND = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float  # monotonic


#: Of all imports: a token is asked for once while it is good. What a registry wants, likewise.
_tokens: dict[tuple[str, ...], _Token] = {}
_wanted: dict[tuple[str, str], Challenge] = {}
_lock = threading.Lock()
_REMEMBERED = 1000  # repositories


class Authorizer:
    """For one repository of one registry; threads may share it."""

    def __init__(
        self,
        client: Client,
        registry: Url,
        repository: str,
        credentials: Credentials | None,
        named: tuple[str, ...],
    ) -> None:
        self._client, self._registry, self._repository = client, registry, repository
        self._credentials, self._named = credentials, named
        self._asking = threading.Lock()  # one asks for a token, the others then have it
        self.kept_from = ""  # the token service that did not get the credentials, if there is one

    def authorize(
        self, url: Url, deadline: Deadline, answer: Answer | None = None, sent: str | None = None
    ) -> str | None:
        """As :class:`client.Authorize` says."""
        key = (url.base, self._repository)
        if answer is None:
            known = _wanted.get(key) if url.base == self._registry.base else None
            if known is None:
                return None
            try:
                return self._meet(known, deadline, spent=None)
            except BaseException:
                # It may not be wanted any more: the next one asks the registry again.
                _wanted.pop(key, None)
                raise
        wanted = _choose(challenge.parse(answer.headers("WWW-Authenticate")))
        if wanted is None:
            return None
        if url.base != self._registry.base:
            # The target of a redirect: anonymously, and for this request alone (D6).
            bearer = wanted.scheme == "bearer"
            return self._fetch(wanted, None, deadline).header if bearer else None
        with _lock:
            if len(_wanted) >= _REMEMBERED:
                _wanted.clear()
            _wanted[key] = wanted
        return self._meet(wanted, deadline, spent=sent)

    @property
    def has_credentials(self) -> bool:
        return self._credentials is not None

    def _meet(self, wanted: Challenge, deadline: Deadline, *, spent: str | None) -> str | None:
        """The header that meets it; not ``spent``, which was just refused. None: there is none."""
        if wanted.scheme == "basic":
            if self._credentials is None or not self._credentials.password:
                return None
            header = _basic(self._credentials.user, self._credentials.password)
            return None if header == spent else header
        with self._asking:
            key = self._key(wanted)
            shown = self._trusting(wanted)
            token = _tokens.get(key)
            if token is None or token.header == spent or token.until <= time.monotonic():
                token = self._fetch(wanted, shown, deadline)
                with _lock:
                    now = time.monotonic()
                    for old in [one for one, held in _tokens.items() if held.until <= now]:
                        del _tokens[old]
                    _tokens[key] = token
            return token.header

    def _key(self, wanted: Challenge) -> tuple[str, ...]:
        said = wanted.parameters
        who = repr((self._credentials, self._secret())).encode() if self._credentials else b""
        return (
            self._registry.base,
            said.get("realm", ""),
            said.get("service", ""),
            " ".join(self._scopes(wanted)),
            hashlib.sha256(who).hexdigest(),
        )

    def _secret(self) -> str:
        found = self._credentials
        return f"{found.password}\0{found.identity_token}" if found else ""

    def _scopes(self, wanted: Challenge) -> list[str]:
        said = wanted.parameters.get("scope", "").split()
        return said or [f"repository:{self._repository}:pull"]

    def _trusting(self, wanted: Challenge) -> Credentials | None:
        """The credentials, if the token service may see them."""
        realm = _realm(wanted)
        if self._credentials is None or same_domain(realm.host, self._registry.host):
            return self._credentials
        if is_named(realm.host, realm.port, self._named):
            return self._credentials
        self.kept_from = realm.authority
        return None

    # --- the token service -----------------------------------------------------------------------

    def _fetch(
        self, wanted: Challenge, credentials: Credentials | None, deadline: Deadline
    ) -> _Token:
        realm = _realm(wanted)
        if realm.scheme == "http" and self._registry.scheme == "https":
            raise Failure("tls", f"the token service {realm} is without TLS")
        begun, deadline = time.monotonic(), Deadline(deadline.step(TOKEN_SECONDS))
        try:
            data = self._ask(realm, wanted, credentials, deadline)
        except TimeUp:
            raise Failure("unreachable", f"the token service {realm} did not answer") from None
        return _token(data, begun)

    def _ask(
        self, realm: Url, wanted: Challenge, credentials: Credentials | None, deadline: Deadline
    ) -> bytes:
        said = [("service", wanted.parameters["service"])] if "service" in wanted.parameters else []
        scopes = self._scopes(wanted)
        if credentials and credentials.identity_token:
            form = [*said, ("scope", " ".join(scopes))]
            if (data := self._post(realm, form, credentials, deadline)) is not None:
                return data
        return self._get(realm, [*said, *(("scope", one) for one in scopes)], credentials, deadline)

    def _get(
        self,
        realm: Url,
        query: list[tuple[str, str]],
        credentials: Credentials | None,
        deadline: Deadline,
    ) -> bytes:
        secret = None
        if credentials:
            query = [("account", credentials.user), *query]
            secret = _basic(credentials.user, credentials.password or credentials.identity_token)
        mark = "&" if "?" in realm.target else "?"
        asked = realm.join(f"{realm.target}{mark}{urllib.parse.urlencode(query)}")

        def authorize(
            url: Url, deadline: Deadline, answer: Answer | None = None, sent: str | None = None
        ) -> str | None:
            return secret if answer is None and url.base == realm.base else None

        def then(answer: Answer) -> bytes:
            return _granted(answer, sent=credentials is not None)

        return self._client.ask("GET", asked, deadline, then, headers={}, authorize=authorize)

    def _post(
        self,
        realm: Url,
        form: list[tuple[str, str]],
        credentials: Credentials,
        deadline: Deadline,
    ) -> bytes | None:
        """OAuth2's refresh; None where the service does not know it, so that GET is tried."""
        form = [
            ("grant_type", "refresh_token"),
            ("client_id", "coppice"),
            ("refresh_token", credentials.identity_token),
            *form,
        ]
        # No redirect is followed: the token would go along.
        answer = self._client.transport.send(
            "POST",
            realm,
            {"Content-Type": "application/x-www-form-urlencoded"},
            deadline,
            urllib.parse.urlencode(form).encode(),
        )
        try:
            return None if answer.status in (404, 405) else _granted(answer, sent=True)
        finally:
            answer.close()


def _granted(answer: Answer, *, sent: bool) -> bytes:
    """The body of a token service's good answer. Failure where it is none."""
    where = f"the token service {answer.url} answered {answer.status}"
    match answer.status:
        case 200:
            data = answer.read(MAX_TOKEN)
            answer.close()
            return data
        case 400 | 401:
            raise Failure("unauthorized", where, refused=sent)
        case 403:
            raise Failure("denied", where, refused=sent)
        case 429:
            raise Failure("rate_limited", where)
    raise Failure("unreachable", where)


def _token(data: bytes, begun: float) -> _Token:
    try:
        said: Any = json.loads(data)
        text = said.get("token") or said.get("access_token")
        seconds = said.get("expires_in") or _LEAST_SECONDS
    except (ValueError, AttributeError, RecursionError):
        raise Failure("unauthorized", "the token service's answer is not JSON") from None
    # Visible ASCII: it becomes part of a header.
    if not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise Failure("unauthorized", "the token service gave no token")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        seconds = _LEAST_SECONDS
    # By our own clock: `issued_at` is by another one.
    seconds = min(max(seconds, _LEAST_SECONDS), 3600)
    return _Token(f"Bearer {text}", begun + seconds * _AHEAD)


def _choose(offered: list[Challenge]) -> Challenge | None:
    """Bearer before Basic; others are not spoken here."""
    for scheme in ("bearer", "basic"):
        for one in offered:
            if one.scheme == scheme and (scheme == "basic" or "realm" in one.parameters):
                return one
    return None


def _realm(wanted: Challenge) -> Url:
    try:
        return Url.parse(wanted.parameters["realm"])
    except ValueError as error:
        raise Failure("unauthorized", f"the token service's address: {error}") from None


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def same_domain(one: str, other: str) -> bool:
    """Whether two hosts belong to the same domain, as far as their names tell.

    No list of public suffixes: below one like azurecr.io a stranger's host counts as the same. The
    registry itself could just as well ask for the credentials, so what is kept here is the mistake
    of sending them across the network, not the registry's own word.
    """
    return one == other or (_domain(one) is not None and _domain(one) == _domain(other))


def _domain(host: str) -> str | None:
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit() or len(labels) < 2:
        return None  # an address, or a name that only this network knows
    wide = len(labels[-1]) == 2 and labels[-2] in _SHARED_SECOND
    kept = 3 if wide else 2
    return ".".join(labels[-kept:]) if len(labels) >= kept else None
