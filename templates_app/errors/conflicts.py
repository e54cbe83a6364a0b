"""What stands in the way."""

from __future__ import annotations

from templates_app.errors.base import CoppiceError, Exit

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


class KeyExists(Conflict):
    code = "key_exists"
    title = "Another key has this label or number"


class KeyAlreadyRevoked(Conflict):
    code = "key_already_revoked"
    title = "This key is revoked"
    hint = "Look at it with: coppice key show KEY"


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
