"""The outside world: registries, files, programs, pool, database."""

from __future__ import annotations

from typing import Any

from templates_app.errors.base import CoppiceError, Exit
from templates_app.errors.words import PULL_REASONS

# --- the outside world -------------------------------------------------------------------------


class PullFailed(CoppiceError):
    """``reason`` is one of :data:`PULL_REASONS`.

    ``again``: it was the fault of something here that is gone now, so a second try is worth it.
    """

    code, status, exit_status, permanent = "pull_failed", 502, Exit.PULL_FAILED, False
    title = "The image could not be pulled"

    def __init__(self, detail: str, *, reason: str, again: bool = False, **rest: Any) -> None:
        super().__init__(detail, **rest)
        self.again = again
        if reason not in PULL_REASONS:
            raise ValueError(f"unknown pull reason {reason!r}")
        self.reason = reason
        self.extra.setdefault("reason", reason)


class RegistryNotAllowed(CoppiceError):
    """Policy, not the network: a caller may not make the server speak to the inside."""

    code, status = "registry_not_allowed", 403
    title = "The registry is on a private address and not among the allowed ones"
    hint = "Name it in COPPICE_REGISTRIES_ALLOWED, or COPPICE_REGISTRIES_INSECURE if without TLS."


class SourceNotAllowed(CoppiceError):
    """Policy, as for registries: which files of this host a caller may have read."""

    code, status = "source_not_allowed", 403
    title = "This file may not be imported from"
    hint = "Put it beneath a directory that COPPICE_IMPORT_ROOTS names; symlinks are not followed."


class Unavailable(CoppiceError):
    code, status, permanent = "unavailable", 503, False
    title = "Something that Coppice needs is not available"


class ProgramMissing(Unavailable):
    code = "program_missing"
    title = "A program that Coppice needs is not installed"
    hint = "Install it on the server; the set-up's package list names all of them."


class ProgramFailed(Unavailable):
    code = "program_failed"
    title = "A program that Coppice runs failed"
    hint = "The server's log has its output under this request id."


class ProgramKilled(Unavailable):
    code = "program_killed"
    title = "A program that Coppice runs was killed"
    hint = "Look for memory pressure in the server's system log, then try again."


class PoolUnavailable(Unavailable):
    code = "pool_unavailable"
    title = "The pool cannot be used"
    hint = "Check COPPICE_POOL and, for zfs:, that `zfs list` works for the server's user."


class PoolBusy(Unavailable):
    code = "pool_busy"
    title = "The pool kept answering 'dataset is busy'"


class StorageReadOnly(Unavailable):
    code = "storage_read_only"
    title = "The storage is mounted read-only"
    hint = "Make it writable (a disk error can cause this), then try again."


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    title = "The database cannot be used"
    hint = "Check DATABASE_URL and the database server."


class Interrupted(Unavailable):
    """An import whose process died; recovery writes it into the log."""

    code = "interrupted"
    title = "The import was interrupted"
    hint = "Start the import again."


class ImportTimeout(CoppiceError):
    code, status, permanent = "timeout", 504, False
    title = "A step of the import took too long"
    hint = "Raise COPPICE_LIMIT_STEP_SECONDS if the image is large or the registry slow."


class OutOfSpace(CoppiceError):
    code, status, permanent = "out_of_space", 507, False
    title = "The pool is full, or its quota used up"
    hint = "Free space on the pool, then try again."
