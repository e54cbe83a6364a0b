"""What registries are shown and believed by: two files that the settings name.

Credentials are in a file as containers-auth.json(5) has it. Entries may be for a host, for a part
of it or for one repository; the longest that fits counts. Helpers (``credHelpers``, ``credsStore``)
are programs that an import would have to run: they are not, and the log says so where it matters.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from templates_app.errors import Unavailable
from templates_app.sources.hosts import HUB

logger = logging.getLogger("coppice.credentials")

_MAX_FILE = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)  # OAuth2's, instead of a password


def find(auth_file: Path | None, host: str, repository: str = "") -> Credentials | None:
    """Those for a repository, or None. Unavailable where the file cannot be read or understood."""
    if auth_file is None:
        return None
    document = _read(auth_file)
    auths = {} if document.get("auths") is None else document["auths"]
    if not isinstance(auths, dict):
        raise _malformed()
    for key in _keys(host, repository):
        if key in auths:
            return _entry(auths[key])
    # As `docker login` writes them: https://index.docker.io/v1/
    for key, entry in auths.items():
        if "://" in key and _same(key.partition("://")[2].partition("/")[0], host):
            return _entry(entry)
    helpers = document.get("credHelpers")
    if document.get("credsStore") or (isinstance(helpers, dict) and host in helpers):
        logger.warning("credential helpers are not run: there are no credentials for %s", host)
    return None


def _keys(host: str, repository: str) -> list[str]:
    parts = repository.split("/") if repository else []
    names = [host, *sorted(HUB - {host})] if host in HUB else [host]
    return [
        "/".join([name, *parts[:length]]) for length in range(len(parts), -1, -1) for name in names
    ]


def _same(one: str, other: str) -> bool:
    return one == other or {one, other} <= HUB


def _read(auth_file: Path) -> dict[str, Any]:
    try:
        with auth_file.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise Unavailable(
            "The file with the registries' credentials cannot be read.",
            hint="Check COPPICE_REGISTRY_AUTH_FILE and the file's permissions.",
            private=str(error),
        ) from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if len(data) > _MAX_FILE or not isinstance(document, dict):
        raise _malformed()
    return document


def _entry(entry: Any) -> Credentials | None:
    if not isinstance(entry, dict):
        raise _malformed()
    auth, identity = entry.get("auth") or "", entry.get("identitytoken") or ""
    if not isinstance(auth, str) or not isinstance(identity, str):
        raise _malformed()
    if not auth and not identity:
        return None
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise _malformed() from None
    if auth and not colon:
        raise _malformed()
    return Credentials(user, password, identity)


def _malformed() -> Unavailable:
    return Unavailable(
        "The file with the registries' credentials is not as containers-auth.json(5) says.",
        hint="Make it anew, for example with: skopeo login --authfile FILE REGISTRY",
    )


def authorities(ca_file: Path | None) -> str:
    """The certificates in ``ca_file``, PEM; nothing without one. Unavailable if it has none."""
    if ca_file is None:
        return ""
    try:
        text = ca_file.read_text("ascii", "ignore")  # comments may be in any encoding
        private = "no certificate in it"
    except OSError as error:
        text, private = "", str(error)
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise unreadable_authorities(private)
    return text


def unreadable_authorities(private: str) -> Unavailable:
    return Unavailable(
        "The file with the registries' certificate authorities cannot be read.",
        hint="Check COPPICE_REGISTRY_CA_FILE: certificates as PEM, and the file's permissions.",
        private=private,
    )
