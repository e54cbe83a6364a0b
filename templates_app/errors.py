"""The one error tree: each class is one documented ``code``.

A class carries what every edge needs: the stable ``code`` and the HTTP ``status`` (RFC 9457
problem details), the ``exit_status`` of the command line, and whether the same request can succeed
later without anybody changing it (``permanent`` is false then). Formatting is the edges' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar

from templates_app.error_codes import GATE_CODES as GATE_CODES
from templates_app.error_codes import PULL_REASONS as PULL_REASONS


class Exit(IntEnum):
    """Exit statuses of ``coppice`` and of the management commands."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_IMPLEMENTED = 3
    CONFLICT = 4
    REFUSED = 5
    PULL_FAILED = 6


class CoppiceError(Exception):
    """Something went wrong that we have a name for.

    ``detail`` is one sentence for a person and must be fit for the caller's eyes: no stderr of a
    program, no host path, no credential. ``hint`` says what to do next. ``extra`` holds additional
    members of the problem document (camelCase keys). ``private`` is for our log alone.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_status: ClassVar[Exit] = Exit.FAILURE
    permanent: ClassVar[bool] = True
    title: ClassVar[str] = "Coppice failed"
    hint: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        extra: Mapping[str, Any] | None = None,
        private: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = self.hint if hint is None else hint
        self.extra = dict(extra or {})
        self.private = private


# --- what the caller wrote ---------------------------------------------------------------------


class MalformedRequest(CoppiceError):
    code, status, exit_status = "malformed_request", 400, Exit.USAGE
    title = "The request is malformed"


class MethodNotAllowed(CoppiceError):
    code, status, exit_status = "method_not_allowed", 405, Exit.USAGE
    title = "This address does not take this method"


class NotAcceptable(CoppiceError):
    code, status, exit_status = "not_acceptable", 406, Exit.USAGE
    title = "There is no answer in the format asked for"


class UnsupportedMediaType(CoppiceError):
    code, status, exit_status = "unsupported_media_type", 415, Exit.USAGE
    title = "The body is of a kind that is not taken"


class MalformedName(CoppiceError):
    code, status, exit_status = "malformed_name", 400, Exit.USAGE
    title = "The template name is malformed"
    hint = "A name is 1 to 64 of a-z, 0-9 and -, begins with a letter or digit."


class MalformedReference(CoppiceError):
    code, status, exit_status = "malformed_reference", 400, Exit.USAGE
    title = "The reference is malformed"
    hint = "Write oci:HOST/NAME[:TAG][@sha256:DIGEST], for example oci:quay.io/project/image:1.0."


class MalformedDigest(CoppiceError):
    code, status, exit_status = "malformed_digest", 400, Exit.USAGE
    title = "The digest is malformed"
    hint = "A digest is sha256: and 64 lower-case hexadecimal digits."


class SchemeNotImplemented(CoppiceError):
    code, status, exit_status = "scheme_not_implemented", 501, Exit.NOT_IMPLEMENTED
    title = "This kind of source is not built yet"


# --- who the caller is -------------------------------------------------------------------------


class NotAuthenticated(CoppiceError):
    code, status = "not_authenticated", 401
    title = "A token is needed"
    hint = "Make one with: manage.py create_token USER --role ROLE, and set COPPICE_TOKEN."


class PermissionDenied(CoppiceError):
    code, status = "permission_denied", 403
    title = "This token may not do that"
    hint = "Use a token of a user in the role that the documentation names for this call."


# --- what is not there -------------------------------------------------------------------------


class NotFound(CoppiceError):
    code, status = "not_found", 404
    title = "There is nothing at this address"


class TemplateNotFound(NotFound):
    code = "template_not_found"
    title = "There is no template of this name"
    hint = "List them with: coppice tpl list"


class GenerationNotFound(NotFound):
    code = "generation_not_found"
    title = "There is no such generation of this template"
    hint = "List them with: coppice tpl generations NAME"


class SandboxNotFound(NotFound):
    code = "sandbox_not_found"
    title = "There is no sandbox of this id"
    hint = "List them with: coppice sandbox list"


class DigestNotFound(NotFound):
    code = "digest_not_found"
    title = "Nothing is known of this digest"


# --- what stands in the way --------------------------------------------------------------------


class Conflict(CoppiceError):
    code, status, exit_status = "conflict", 409, Exit.CONFLICT
    title = "The request conflicts with what is there"


class TemplateExists(Conflict):
    code = "template_exists"
    title = "A template of this name exists"


class GenerationCurrent(Conflict):
    code = "generation_current"
    title = "This generation is current already"


class ImportInProgress(Conflict):
    code, permanent = "import_in_progress", False
    title = "An import of this name is running"
    hint = "Wait for it, or look at it with: coppice tpl show NAME"


class TemplateInUse(Conflict):
    code = "template_in_use"
    title = "Sandboxes or clones depend on this template"
    hint = "Destroy the clones first: coppice sandbox destroy ID"


class TemplateMissing(Conflict):
    code = "template_missing"
    title = "The template is in the log, but its dataset is not on the pool"
    hint = "Import it again with --force, or restore the dataset and run: coppice tpl reload"


class SandboxExists(Conflict):
    code = "sandbox_exists"
    title = "A sandbox of this name exists"


class SandboxBusy(Conflict):
    code, permanent = "sandbox_busy", False
    title = "Somebody else launches or destroys this sandbox now"
    hint = "Look at it with: coppice sandbox list, then try again."


class AdoptedInTheWay(Conflict):
    code = "adopted_in_the_way"
    title = "A hand-made dataset holds this name and cannot be moved aside"


class EventConflict(Conflict):
    code, permanent = "event_conflict", False
    title = "Somebody else changed this at the same moment"
    hint = "Look at the present state, then try again."


class EventIdReused(Conflict):
    code = "event_id_reused"
    title = "An event with this id and other content is in the log"


class IdempotencyKeyReused(Conflict):
    code, status = "idempotency_key_reused", 422
    title = "This Idempotency-Key was used for another import"
    hint = "Take a new key for each import; repeat one only with the same body."


class TreeChanged(Conflict):
    code, permanent = "tree_changed", False
    title = "Files changed while they were read"
    hint = "Find out what writes below the pool, then try again."


class LogIsAppendOnly(Conflict):
    code = "log_is_append_only"
    title = "Events are never changed or deleted"


class LogInconsistent(Conflict):
    code = "log_inconsistent"
    title = "The log is not what was recorded of it"


class PreconditionFailed(Conflict):
    code, status = "precondition_failed", 412
    title = "It is not what the request says it is (If-Match)"
    hint = "Look at the present state, then decide again."


# --- what the image is -------------------------------------------------------------------------


class PlatformIncompatible(CoppiceError):
    code, status = "platform_incompatible", 422
    title = "The image has nothing for this platform"
    hint = "Set COPPICE_PLATFORM to a platform that the image offers."


class TreeRefused(CoppiceError):
    code, status = "tree_refused", 422
    title = "The image's file tree is refused"


class NotAnImage(CoppiceError):
    code, status = "not_an_image", 422
    title = "The reference names an artifact, not a container image"


# --- signatures offered ------------------------------------------------------------------------


class SignatureRejected(CoppiceError):
    """``POST …/signatures``: what was offered is not a signature by a trusted key of this text."""

    code, status, exit_status = "signature_invalid", 422, Exit.REFUSED
    title = "The signature does not verify"
    hint = "Sign the exact bytes of: coppice tpl statement NAME"


class SignatureMalformed(SignatureRejected):
    code, exit_status = "signature_malformed", Exit.USAGE
    title = "This is not a signify signature"


class SigningKeyUntrusted(SignatureRejected):
    code = "key_untrusted"
    title = "The key that signed is not trusted here"
    hint = "Put its .pub file into the directory that COPPICE_TRUSTED_KEYS names."


class KeyMalformed(CoppiceError):
    """A key file that is not signify's, or whose parts contradict each other."""

    code, status, exit_status = "key_malformed", 422, Exit.USAGE
    title = "This is not a signify key"
    hint = "Make a pair with: signify -G -p NAME.pub -s NAME.sec"


class PassphraseWrong(CoppiceError):
    """Only where a key is opened, on the signer's side: the server has no secret key."""

    code, status = "passphrase_wrong", 422
    title = "The passphrase does not open the secret key"


class StatementMalformed(CoppiceError):
    """Bytes that should be a statement: what is stored or served was damaged or forged."""

    code, status = "statement_malformed", 422
    title = "This is not a statement of Coppice"


# --- the gate ----------------------------------------------------------------------------------


class GateRefused(CoppiceError):
    """The gate said no; ``gate_code`` is the first failed check's code, the body its decision."""

    code, status, exit_status = "gate_refused", 403, Exit.REFUSED
    title = "The gate refuses to launch this template"

    def __init__(self, detail: str, *, gate_code: str, **rest: Any) -> None:
        super().__init__(detail, **rest)
        self.gate_code = gate_code


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


def every_error() -> list[type[CoppiceError]]:
    """All classes of the tree, in the order of definition; the documentation's test uses it."""

    def below(cls: type[CoppiceError]) -> list[type[CoppiceError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    return below(CoppiceError)
