"""WWW-Authenticate: what a registry wants to see (RFC 9110, 11.6.1; RFC 6750, 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_LONGEST = 16 * 1024  # characters that are looked at
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_GAP = re.compile(r"[ \t,]+")
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,]|$)")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
# An unquoted value is a word by the letter; addresses without quotes are seen all the same.
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))(?=[ \t,]|$)')


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str  # lower case
    parameters: Mapping[str, str]  # names in lower case; of two equal ones the first


def parse(values: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers of that name, in order, as far as they can be read."""
    return [one for value in values for one in _parse(value[:_LONGEST])]


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    at = 0
    while True:
        if gap := _GAP.match(text, at):
            at = gap.end()
        # A comma parts challenges and parameters alike: what has a `=` is a parameter.
        if found and (parameter := _PARAMETER.match(text, at)):
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(name.lower(), value)
            at = parameter.end()
        elif scheme := _SCHEME.match(text, at):
            parameters = {}
            found.append(Challenge(scheme[1].lower(), parameters))
            at = scheme.end()
            if token := _TOKEN68.match(text, at):
                at = token.end()
        else:
            return found
