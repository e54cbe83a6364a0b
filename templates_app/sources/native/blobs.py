"""A blob's bytes, over as many connections as it takes (D7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from templates_app.sources.native.network import Failure
from templates_app.sources.native.transport import Answer

#: Bytes that an attempt must bring to count as progress, so that no blob is resumed for ever.
_PROGRESS = 1024 * 1024


class Ask(Protocol):
    """The answer to a GET of the blob, as ``then`` lets it pass. Failure."""

    def __call__(self, headers: Mapping[str, str], then: Callable[[Answer], Answer]) -> Answer: ...


class _Unranged(Exception):
    """The registry does not give a part of this blob."""


def resumed(
    ask: Ask,
    failure: Callable[[Answer], Failure],
    pause: Callable[[int], None],
    *,
    size: int,
    at: int,
    attempts: int,
) -> Iterator[bytes]:
    """The bytes from ``at`` on, exactly to ``size``. Failure.

    ``failure`` says what an answer that is none stands for; ``pause`` waits before the attempt of
    that number; ``attempts`` may bring nothing one after the other.
    """
    failed, ranged = 0, True
    while at < size:
        begun = at
        try:
            for chunk in _part(ask, failure, size, at, ranged=ranged):
                at += len(chunk)
                yield chunk
        except _Unranged:
            ranged = False
        except Failure as broken:
            failed = 0 if at - begun >= _PROGRESS else failed + 1
            if not broken.again or failed >= attempts:
                raise
            pause(failed)


def _part(
    ask: Ask, failure: Callable[[Answer], Failure], size: int, at: int, *, ranged: bool
) -> Iterator[bytes]:
    """What one answer brings. Without ``ranged`` all is asked for, and what is known skipped."""
    asked = ranged and at > 0

    def then(answer: Answer) -> Answer:
        if asked and answer.status == 416:
            raise _Unranged
        if answer.status == 206 and asked:
            # Another range than was asked for is of no use, whatever it is.
            if not _is_range(answer.header("Content-Range"), at, size):
                raise _Unranged
        elif answer.status != 200:
            raise failure(answer)
        expected = size - at if answer.status == 206 else size
        said = answer.header("Content-Length")
        if said and said != str(expected):
            raise Failure("corrupt", f"{answer.url} has {said} bytes, not {expected}")
        return answer

    try:
        answer = ask({"Range": f"bytes={at}-"} if asked else {}, then)
    except Failure as spent:
        spent.again = False  # it was tried as often as it is worth
        raise
    try:
        skip = at if answer.status == 200 else 0
        left = size - at
        for chunk in answer.chunks():
            kept = chunk[skip:] if skip else chunk
            skip -= len(chunk) - len(kept)
            if len(kept) > left:
                # A byte too many is a lie about all of them.
                raise Failure("corrupt", f"{answer.url} has more than {size} bytes")
            left -= len(kept)
            if kept:
                yield kept
        if left:
            raise Failure("corrupt", f"{answer.url} ended {left} bytes early", again=True)
    finally:
        answer.close()


def _is_range(said: str, at: int, size: int) -> bool:
    return re.fullmatch(rf"bytes {at}-{size - 1}/(?:{size}|\*)", said.strip()) is not None
