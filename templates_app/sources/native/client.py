"""Requests with patience and with suspicion: redirects (D6), retries (D8, D9), challenges (D5)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from templates_app.sources.native import throttle
from templates_app.sources.native.network import Deadline, Failure
from templates_app.sources.native.transport import MAX_ERROR, Answer, Transport, Url

MAX_HOPS = 5
ATTEMPTS = 4

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_SECONDS = 0.25  # before the second attempt
_FIRST_LIMITED = 1.0  # the same after a 429 that does not say how long

T = TypeVar("T")


class Authorize(Protocol):
    """Says what is sent as Authorization to an address, if anything.

    Asked before a request, without an answer; and when a 401 came, with it and with what was
    ``sent``: None then leaves it at that.
    """

    def __call__(
        self, url: Url, deadline: Deadline, answer: Answer | None = None, sent: str | None = None
    ) -> str | None: ...


class Client:
    """What all questions to a registry go through; threads may share it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def ask(
        self,
        method: str,
        url: Url,
        deadline: Deadline,
        then: Callable[[Answer], T],
        *,
        headers: Mapping[str, str],
        authorize: Authorize,
        attempts: int = ATTEMPTS,
    ) -> T:
        """What ``then`` makes of the answer that counts, whatever its status; it closes it.

        Redirects are followed. Failure, also one of ``then``'s: it is tried again where it says so.
        """
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            with throttle.of(url.base).turn(deadline, self.transport.closed.is_set) as turn:
                try:
                    answer = self._follow(method, url, deadline, headers, authorize)
                    said = throttle.retry_after(answer.header("Retry-After"))
                    if answer.status == 429:
                        # All who ask this registry wait for it, not only this attempt.
                        pause = throttle.backoff(attempt, _FIRST_LIMITED)
                        turn.limited(pause if said is None else said)
                    else:
                        turn.answered()
                    if last or answer.status not in _PASSING or (said or 0) > throttle.LONGEST:
                        return _closing(answer, then)
                    answer.discard()
                except Failure as failure:
                    if last or not failure.again:
                        raise
            self.pause(attempt, deadline)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, deadline: Deadline) -> None:
        """Wait before another attempt, unless it is given up meanwhile."""
        seconds = throttle.backoff(attempt, _FIRST_SECONDS)
        self.transport.closed.wait(deadline.step(seconds))

    def _follow(
        self,
        method: str,
        url: Url,
        deadline: Deadline,
        headers: Mapping[str, str],
        authorize: Authorize,
    ) -> Answer:
        at = url
        for _ in range(MAX_HOPS + 1):
            answer = self._hop(method, at, deadline, headers, authorize)
            if answer.status not in _REDIRECTS:
                return answer
            answer.discard()
            try:
                there = at.join(answer.header("Location"))
            except ValueError as error:
                raise Failure("unreachable", f"{at} sends elsewhere: {error}") from None
            if at.scheme == "https" and there.scheme == "http":
                raise Failure("tls", f"{at} sends to {there}, without TLS")
            at = there
        raise Failure("unreachable", f"{url} sends on more than {MAX_HOPS} times")

    def _hop(
        self,
        method: str,
        url: Url,
        deadline: Deadline,
        headers: Mapping[str, str],
        authorize: Authorize,
    ) -> Answer:
        sent = authorize(url, deadline)
        answer = self.transport.send(method, url, _with(headers, sent), deadline)
        if answer.status != 401:
            return answer
        try:
            secret = authorize(url, deadline, answer, sent)
        except BaseException:
            answer.close()
            raise
        if secret is None:
            return answer
        answer.discard()
        return self.transport.send(method, url, _with(headers, secret), deadline)


def _closing(answer: Answer, then: Callable[[Answer], T]) -> T:
    try:
        return then(answer)
    except BaseException:
        answer.close()
        raise


def _with(headers: Mapping[str, str], secret: str | None) -> dict[str, str]:
    return {**headers, **({"Authorization": secret} if secret else {})}


def error_body(answer: Answer) -> bytes:
    """What an error says; nothing where it is too long or breaks off."""
    try:
        return answer.read(MAX_ERROR)
    except Failure:
        return b""


def error_codes(body: bytes) -> list[str]:
    """The codes of an error (distribution-spec, "Error Codes"), and nothing else of it."""
    try:
        codes = [one["code"] for one in json.loads(body)["errors"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []  # any form is allowed, HTML of some proxy too
    return [one for one in codes if isinstance(one, str) and re.fullmatch(r"[A-Z_]{1,64}", one)]
