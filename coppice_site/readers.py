"""Readers of environment variables: each takes a text and gives a value, or refuses odd ones."""

from __future__ import annotations

import os
import platform as host
import re
from collections.abc import Callable
from pathlib import Path

from templates_app.errors import CoppiceError
from templates_app.names import NameGlob, Platform, Reference


class Odd(ValueError):
    """A value that its reader does not take; the text says what it takes."""


def switch(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise Odd("must be one of 1, true, yes, on, 0, false, no, off")


def gate_mode(text: str) -> str:
    if text.lower() == "warn":
        return "warn"
    try:
        return "on" if switch(text) else "off"
    except Odd:
        raise Odd("must be one of 1, true, yes, on, 0, false, no, off, warn") from None


def whole(least: int, most: int) -> Callable[[str], int]:
    def read_whole(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise Odd(f"must be a whole number from {least} to {most}")
        return int(text)

    return read_whole


def one_of(*words: str) -> Callable[[str], str]:
    def read_word(text: str) -> str:
        if text not in words:
            raise Odd(f"must be one of {', '.join(words)}")
        return text

    return read_word


def absolute_path(text: str) -> Path | None:
    if not text:
        return None
    if not text.startswith("/") or "\0" in text:
        raise Odd("must be an absolute path")
    return Path(os.path.normpath(text))


def pool(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    dataset = r"[A-Za-z][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)*"
    if scheme == "zfs" and re.fullmatch(dataset, rest):
        return text
    if scheme == "dir" and rest.startswith("/") and "@" not in rest:
        return f"dir:{os.path.normpath(rest)}"
    raise Odd("must be zfs:DATASET (zfs:zroot/jails) or dir:/ABSOLUTE/PATH without '@'")


def host_platform() -> str:
    """The platform of this machine in the words of GOOS and GOARCH."""
    machine = host.machine().lower()
    words = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}
    return f"{host.system().lower()}/{words.get(machine, machine)}"


def platform(text: str) -> Platform:
    try:
        return Platform.parse(text or host_platform())
    except CoppiceError:
        raise Odd("must be os/arch, for example freebsd/amd64") from None


def hosts(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for one in found:
        if not re.fullmatch(r"[a-z0-9.\[\]:-]{1,255}", one):
            raise Odd("must be registry hosts (host or host:port), separated by commas")
    return found


def mirrors(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """``host=mirror[,mirror]``, several of them separated by ``;``."""
    found = {}
    for part in filter(None, (one.strip() for one in text.split(";"))):
        host, _, rest = part.partition("=")
        of, there = hosts(host), hosts(rest)
        if len(of) != 1 or not there or of[0] in found or not all(map(_is_host, of + there)):
            raise Odd("must be HOST=MIRROR[,MIRROR], separated by semicolons, each host once")
        found[of[0]] = there
    return tuple(found.items())


def _is_host(text: str) -> bool:
    """Whether it can stand at the front of a reference."""
    try:
        return Reference.parse(f"{text}/x").host == text
    except CoppiceError:
        return False


def globs(text: str) -> tuple[NameGlob, ...]:
    try:
        return tuple(NameGlob.parse(part.strip()) for part in text.split(",") if part.strip())
    except CoppiceError:
        raise Odd("must be patterns of template names (test-*), separated by commas") from None


def nameserver(text: str) -> str:
    if text and not re.fullmatch(r"[0-9a-fA-F.:]{2,45}", text):
        raise Odd("must be an IP address, or empty to plant no resolv.conf")
    return text


def node(text: str) -> str:
    chosen = text or re.sub(r"[^a-zA-Z0-9.-]", "-", host.node() or "localhost")[:63]
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}", chosen):
        raise Odd("must be 1 to 63 letters, digits, dots and hyphens")
    return chosen


def anything(text: str) -> str:
    return text
