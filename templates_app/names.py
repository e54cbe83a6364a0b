"""Parsed values: a name that exists as one of these objects is well-formed.

Nothing here touches a disk, a network or a database. Each ``parse`` raises the matching
``Malformed…`` error, whose text quotes the caller's input safely (``repr``, cut at 80 characters).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from templates_app.errors import MalformedDigest, MalformedName, MalformedReference

_TEMPLATE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NAME_GLOB = re.compile(r"[a-z0-9*?-]{1,64}")
_MOST_STARS = 4  # each makes a regular expression look again at all that is left of a name
_SIXTY_FOUR_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# distribution-spec, "Pulling manifests": <name> and <reference> (tag) grammars.
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:]{2,39}\]"
    r"|[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*)"
    r"(?::[0-9]{1,5})?"
)
_PLATFORM_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


def quote(text: str) -> str:
    """``text`` as an error message may show it: escaped, at most 80 characters."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else shown[:77] + "…'"


@dataclass(frozen=True, slots=True, order=True)
class TemplateName:
    """The name of a template: also part of dataset names, so its grammar is narrow."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _TEMPLATE_NAME.fullmatch(text):
            raise MalformedName(f"{quote(text)} is not a template name.")
        if _SIXTY_FOUR_HEX.fullmatch(text):
            # 64 hex digits would be taken for a digest or an image id by every neighbouring tool.
            raise MalformedName("A template name may not be 64 hexadecimal digits.")
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class NameGlob:
    """Which templates: a name in which ``*`` stands for any characters, and ``?`` for one."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _NAME_GLOB.fullmatch(text):
            raise MalformedName(
                f"{quote(text)} is not a pattern for template names.",
                hint="Write a name, where * stands for any characters and ? for one: prod-*",
            )
        if text.count("*") > _MOST_STARS:
            raise MalformedName(f"{quote(text)} has more than {_MOST_STARS} times *.")
        return cls(text)

    @property
    def regex(self) -> str:
        """The same as a regular expression that Python and PostgreSQL read alike."""
        return "^" + self.text.replace("?", ".").replace("*", ".*") + "$"

    def matches(self, name: TemplateName | str) -> bool:
        return re.match(self.regex, str(name)) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``sha256:<64 hex>`` (image-spec, descriptor.md). Parsed once, before it is part of a path."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _DIGEST.fullmatch(text):
            raise MalformedDigest(f"{quote(text)} is not a sha256 digest.")
        return cls(text)

    @property
    def hex(self) -> str:
        return self.text.removeprefix("sha256:")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is for: ``os/architecture[/variant]`` in the words of GOOS and GOARCH."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PLATFORM_PART.fullmatch(p) for p in parts):
            raise MalformedReference(
                f"{quote(text)} is not a platform.",
                hint="Write os/arch, such as freebsd/amd64.",
            )
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Reference:
    """An OCI registry reference with an explicit host.

    Without a tag and a digest the tag is ``latest``. A reference is ``floating`` when a tag alone
    decides what it means; with tag and digest, the digest decides.
    """

    given: str
    host: str
    repository: str
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what stands behind ``oci:``.

        Refused: short names (no host), nested transports (``docker://``, ``dir:/x``), a leading
        ``-`` (it would be an option), whitespace, control characters, bare 64-hex ids.
        """
        wrong = f"{quote(text)} is not an OCI reference"
        if not text:
            raise MalformedReference("The reference is empty.")
        if text.startswith("-"):
            raise MalformedReference(f"{wrong}: it begins with '-', like an option.")
        if any(not "!" <= char <= "~" for char in text):
            raise MalformedReference(
                f"{wrong}: it has whitespace, control or non-ASCII characters."
            )
        if len(text) > 512:
            raise MalformedReference(f"{wrong}: it is longer than 512 characters.")
        if _SIXTY_FOUR_HEX.fullmatch(text):
            raise MalformedReference(f"{wrong}: a bare image id says nothing of where it is from.")
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except MalformedDigest as error:
                raise MalformedReference(f"{wrong}: {error.detail}") from None
        host, slash, path = rest.partition("/")
        if not slash or not _HOST.fullmatch(host) or not cls._looks_like_host(host):
            raise MalformedReference(
                f"{wrong}: it must begin with a registry host (a dot, a port, or localhost)."
            )
        repository, colon, tag = path.rpartition(":") if ":" in path else (path, "", "")
        if colon and not _TAG.fullmatch(tag):
            raise MalformedReference(f"{wrong}: the tag is malformed.")
        if len(repository) > 255 or not _REPOSITORY.fullmatch(repository):
            raise MalformedReference(f"{wrong}: the repository name is malformed.")
        return cls(
            given=text,
            host=host.lower(),
            repository=repository,
            tag=tag or (None if digest else "latest"),
            digest=digest,
        )

    @staticmethod
    def _looks_like_host(host: str) -> bool:
        port = host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""
        if port and not 0 < int(port) < 65536:
            return False
        return bool(port) or "." in host or host.startswith("[") or host.lower() == "localhost"

    @property
    def floating(self) -> bool:
        return self.digest is None

    @property
    def name(self) -> str:
        """``host/repository``: what a digest is appended to."""
        return f"{self.host}/{self.repository}"

    @property
    def canonical(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"

    def __str__(self) -> str:
        return self.canonical


@dataclass(frozen=True, slots=True)
class SnapshotName:
    """``dataset@base``: the full name, as ZFS writes it."""

    dataset: str
    snapshot: str = "base"

    @classmethod
    def parse(cls, text: str) -> Self:
        dataset, at, snapshot = text.rpartition("@")
        if not (dataset and at and snapshot) or any(c.isspace() for c in text):
            raise ValueError(f"{quote(text)} is not a snapshot name")
        return cls(dataset, snapshot)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.snapshot}"


def human_size(size_bytes: int) -> str:
    """Bytes in powers of 1024 with one decimal, as ``zfs list`` writes them: ``157.2M``."""
    value = float(size_bytes)
    for unit in "BKMGTP":
        if round(value, 1) < 1024 or unit == "P":  # 1023.96 would be written 1024.0
            return f"{size_bytes}B" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
