"""Signatures that are offered, and the gate."""

from __future__ import annotations

from typing import Any

from templates_app.errors.base import CoppiceError, Exit

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
    hint = "Trust it: coppice key trust FILE.pub, or put it where COPPICE_TRUSTED_KEYS points."


class SigningKeyRevoked(SignatureRejected):
    code = "key_revoked"
    title = "The key that signed is revoked"
    hint = "Sign with another key. A key that was revoked is never trusted again."


class SigningKeyOutsideDates(SignatureRejected):
    code = "key_outside_dates"
    title = "The key that signed is not to be trusted now, by its dates"
    hint = "Sign with another key, or look at its dates: coppice key show KEY"


class SigningKeyOutsideScope(SignatureRejected):
    code = "key_outside_scope"
    title = "The key that signed is not trusted for this template"
    hint = "Sign with a key of this scope: coppice key list"


class SignatureIsWithdrawn(SignatureRejected):
    code = "signature_withdrawn"
    title = "This signature was withdrawn"
    hint = "What was withdrawn stays so: sign with another key."


class KeyUnfit(CoppiceError):
    """A key that may not be trusted for templates, or not so as was asked."""

    code, status, exit_status = "key_unfit", 422, Exit.USAGE
    title = "This key may not be trusted so"


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
