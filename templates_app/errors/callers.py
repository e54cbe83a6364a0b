"""What the caller wrote, who the caller is, what is not there."""

from __future__ import annotations

from templates_app.errors.base import CoppiceError, Exit

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


class ManifestMissing(NotFound):
    code = "manifest_missing"
    title = "The tree manifest is not kept, and cannot be made again"
    hint = "Restore the directory `manifests` of the state directory from a backup."


class SignatureNotFound(NotFound):
    code = "signature_not_found"
    title = "There is no signature by this key"
    hint = "Look at who has signed: coppice tpl history NAME"


class KeyNotFound(NotFound):
    code = "key_not_found"
    title = "There is no key of this number or label"
    hint = "List them with: coppice key list"


class DigestNotFound(NotFound):
    code = "digest_not_found"
    title = "Nothing is known of this digest"
