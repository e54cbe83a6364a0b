"""What buildah and rsync say on stderr when they fail, as an error of ours.

The texts are containers/image's and containers/storage's, from runs against registries that fail in
each way; statuses come first, for they are exact. The text itself goes to the log only.
"""

from __future__ import annotations

import re
from pathlib import Path

from templates_app.errors import (
    PULL_REASONS,
    CoppiceError,
    MalformedReference,
    OutOfSpace,
    ProgramFailed,
    ProgramKilled,
    PullFailed,
    StorageReadOnly,
    TreeRefused,
    Unavailable,
)
from templates_app.names import Reference
from templates_app.run import Result
from templates_app.sources import credentials

_KEPT = 4000  # characters for the log

_FULL = re.compile(r"no space left on device|disk quota exceeded", re.I)
_READ_ONLY = re.compile(r"read-only file system", re.I)
_KILLED = re.compile(r"signal: (killed|terminated|aborted|segmentation fault)", re.I)
_LAYER = re.compile(
    r"processing tar file\(|unpacking failed|max depth exceeded|duplicates of file paths", re.I
)

#: "StatusCode: 404, …", "invalid status code from registry 404 (Not Found)", "HTTP status: 500 …"
_STATUS = re.compile(r"(?:StatusCode|status code(?: from registry)?|HTTP status):? (\d{3})\b", re.I)
_OF_STATUS = {401: "unauthorized", 403: "denied", 404: "not_found", 429: "rate_limited"}

_REASONS = (
    ("rate_limited", r"toomanyrequests|too many requests"),
    ("tls", r"x509: |tls: |server gave HTTP response to HTTPS client|certificate"),
    ("unauthorized", r"\bunauthorized\b|authentication required"),
    ("denied", r"\bdenied\b"),
    ("not_found", r"manifest unknown|name unknown|blob unknown|name invalid|not known to registry"),
    (
        "corrupt",
        r"did not match|does not match|unexpected EOF|manifest verification failed"
        r"|uses different layers|size mismatch|invalid checksum",
    ),
    (
        "unreachable",
        r"connection refused|connection reset|no such host|no route to host|i/o timeout"
        r"|network is unreachable|TLS handshake timeout|server misbehaving|\bEOF\b|broken pipe"
        r"|deadline exceeded|pinging container registry",
    ),
)


def error(result: Result, reference: Reference, auth_file: Path | None = None) -> CoppiceError:
    """The error that a failed program's stderr stands for; ProgramFailed where it is not known."""
    said = _last_words(result.stderr, reference)
    private = result.stderr[-_KEPT:]
    if found := storage_error(said, private) or _killed(said, private, result):
        return found
    if _LAYER.search(said):
        return TreeRefused(
            "One of the image's layers cannot be unpacked.",
            hint="The server's log has the reason; the image must be built again.",
            extra={"rule": "layer-unpack"},
            private=private,
        )
    if reason := _reason(said):
        refused = reason == "unauthorized" and _has_credentials(auth_file, reference)
        return pull_failed(reference, reason, private, refused=refused)
    if "invalid reference format" in said:
        # The grammar knows hosts that older versions of the programs do not: [::1]:5000.
        return MalformedReference(
            "The installed buildah cannot ask a registry by an IPv6 address.",
            hint="Use a host name.",
            private=private,
        )
    return ProgramFailed(f"{result.program} ended with status {result.status}.", private=private)


def pull_failed(
    reference: Reference,
    reason: str,
    private: str = "",
    *,
    refused: bool = False,
    kept_from: str = "",
) -> PullFailed:
    """For ``unauthorized``: whether credentials were ``refused``, or ``kept_from`` a host."""
    said, hint = PULL_REASONS[reason], ""
    if reason == "unauthorized" and kept_from:
        said = (
            f"Its credentials were not sent: its token service is {kept_from}, of another domain."
        )
        hint = "Name the token service in COPPICE_REGISTRIES_ALLOWED if it belongs to the registry."
    elif reason == "unauthorized" and refused:
        said = "The registry refuses the credentials that COPPICE_REGISTRY_AUTH_FILE has for it."
    return PullFailed(
        f"{reference.canonical}: {said}", reason=reason, hint=hint or None, private=private
    )


def storage_error(said: str, private: str) -> CoppiceError | None:
    """Full or read-only storage: what any program that writes may run into."""
    if _FULL.search(said):
        return OutOfSpace("There is no space left to import the image.", private=private)
    if _READ_ONLY.search(said):
        return StorageReadOnly("What the import writes to is mounted read-only.", private=private)
    return None


def _killed(said: str, private: str, result: Result) -> CoppiceError | None:
    """A helper process that the program had started was killed, and it says so."""
    if not _KILLED.search(said):
        return None
    return ProgramKilled(f"A part of {result.program} was killed.", private=private)


def _last_words(stderr: str, reference: Reference) -> str:
    """The last complaint, without the reference in it: a repository may be called `denied`."""
    lines = [
        line for line in stderr.splitlines() if line.startswith("Error: ") or "level=error" in line
    ]
    said = lines[-1] if lines else stderr
    return said.replace(reference.name, "").replace(f"/{reference.repository}", "")


def _reason(said: str) -> str | None:
    if status := _STATUS.search(said):
        number = int(status[1])
        return _OF_STATUS.get(number, "unreachable" if number >= 500 else None)
    found = (reason for reason, words in _REASONS if re.search(words, said, re.I))
    return next(found, None)


def _has_credentials(auth_file: Path | None, reference: Reference) -> bool:
    """A 401 then means that the credentials are refused, not that some are needed."""
    try:
        return credentials.find(auth_file, reference.host, reference.repository) is not None
    except Unavailable:
        return False  # not in that format: the program has said so in its own words
