"""When a registry may be asked again: what all imports of this process know of each (D9).

A registry that answers 429 is asked nothing for as long as it says; then by one request alone, and
by the others only when that one was answered.
"""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from templates_app.sources.native.network import Deadline, Failure

LONGEST = 30.0  # seconds that are waited because of one answer; who is told more gives up

_POLL = 0.2  # seconds between two looks at whether the caller has given up
_REMEMBERED = 1000  # registries
_random = random.SystemRandom()


def backoff(attempt: int, first: float) -> float:
    """Seconds before attempt ``attempt`` + 1: doubling, with a random half on top."""
    return min(LONGEST, first * 2.0**attempt) * (1 + _random.uniform(0, 0.5))


def retry_after(text: str, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date. None if neither."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


class Throttle:
    """Of one registry."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._opens = 0.0  # monotonic
        self._limited = False
        self._probed = False  # somebody is trying whether it goes again

    @contextmanager
    def turn(self, deadline: Deadline, given_up: Callable[[], bool]) -> Iterator[Turn]:
        """Wait until the registry may be asked. Failure (rate_limited) if that is too late."""
        turn = Turn(self, self._wait(deadline, given_up))
        try:
            yield turn
        finally:
            if turn.probe:
                with self._changed:
                    self._probed = False
                    self._changed.notify_all()

    def _wait(self, deadline: Deadline, given_up: Callable[[], bool]) -> bool:
        with self._changed:
            while self._limited:
                wait = self._opens - time.monotonic()
                if wait >= deadline.left():
                    raise Failure("rate_limited", f"not before {wait:.0f} seconds")
                if given_up():
                    raise Failure("unreachable", "given up")
                if wait <= 0 and not self._probed:
                    self._probed = True
                    return True
                self._changed.wait(min(wait, _POLL) if wait > 0 else _POLL)
            return False

    def limit(self, seconds: float) -> None:
        with self._changed:
            self._limited = True
            # Capped: what a registry says for hours may be over with the next login.
            self._opens = max(self._opens, time.monotonic() + min(seconds, LONGEST))

    @property
    def limited(self) -> bool:
        return self._limited

    def lift(self) -> None:
        with self._changed:
            self._limited = False
            self._changed.notify_all()


class Turn:
    def __init__(self, throttle: Throttle, probe: bool) -> None:
        self._throttle, self.probe = throttle, probe

    def limited(self, seconds: float) -> None:
        self._throttle.limit(seconds)

    def answered(self) -> None:
        # One that was sent before the registry said "slow down" proves nothing.
        if self.probe:
            self._throttle.lift()


_throttles: dict[str, Throttle] = {}
_lock = threading.Lock()


def of(base: str) -> Throttle:
    """The one of a registry, by its scheme, host and port."""
    with _lock:
        if len(_throttles) >= _REMEMBERED:
            for old in [one for one, held in _throttles.items() if not held.limited]:
                del _throttles[old]
        return _throttles.setdefault(base, Throttle())
