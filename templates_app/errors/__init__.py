"""The one error tree: each class is one documented ``code``.

A class carries what every edge needs: the stable ``code`` and the HTTP ``status`` (RFC 9457
problem details), the ``exit_status`` of the command line, and whether the same request can succeed
later without anybody changing it (``permanent`` is false then). Formatting is the edges' work.
"""

from __future__ import annotations

from templates_app.errors.base import CoppiceError as CoppiceError
from templates_app.errors.base import Exit as Exit
from templates_app.errors.callers import DigestNotFound as DigestNotFound
from templates_app.errors.callers import GenerationNotFound as GenerationNotFound
from templates_app.errors.callers import KeyNotFound as KeyNotFound
from templates_app.errors.callers import MalformedDigest as MalformedDigest
from templates_app.errors.callers import MalformedName as MalformedName
from templates_app.errors.callers import MalformedReference as MalformedReference
from templates_app.errors.callers import MalformedRequest as MalformedRequest
from templates_app.errors.callers import ManifestMissing as ManifestMissing
from templates_app.errors.callers import MethodNotAllowed as MethodNotAllowed
from templates_app.errors.callers import NotAcceptable as NotAcceptable
from templates_app.errors.callers import NotAuthenticated as NotAuthenticated
from templates_app.errors.callers import NotFound as NotFound
from templates_app.errors.callers import PermissionDenied as PermissionDenied
from templates_app.errors.callers import SandboxNotFound as SandboxNotFound
from templates_app.errors.callers import SchemeNotImplemented as SchemeNotImplemented
from templates_app.errors.callers import SignatureNotFound as SignatureNotFound
from templates_app.errors.callers import TemplateNotFound as TemplateNotFound
from templates_app.errors.callers import UnsupportedMediaType as UnsupportedMediaType
from templates_app.errors.conflicts import AdoptedInTheWay as AdoptedInTheWay
from templates_app.errors.conflicts import Conflict as Conflict
from templates_app.errors.conflicts import EventConflict as EventConflict
from templates_app.errors.conflicts import EventIdReused as EventIdReused
from templates_app.errors.conflicts import GenerationCurrent as GenerationCurrent
from templates_app.errors.conflicts import IdempotencyKeyReused as IdempotencyKeyReused
from templates_app.errors.conflicts import ImportInProgress as ImportInProgress
from templates_app.errors.conflicts import KeyAlreadyRevoked as KeyAlreadyRevoked
from templates_app.errors.conflicts import KeyExists as KeyExists
from templates_app.errors.conflicts import LogInconsistent as LogInconsistent
from templates_app.errors.conflicts import LogIsAppendOnly as LogIsAppendOnly
from templates_app.errors.conflicts import PreconditionFailed as PreconditionFailed
from templates_app.errors.conflicts import SandboxBusy as SandboxBusy
from templates_app.errors.conflicts import SandboxExists as SandboxExists
from templates_app.errors.conflicts import TemplateExists as TemplateExists
from templates_app.errors.conflicts import TemplateInUse as TemplateInUse
from templates_app.errors.conflicts import TemplateMissing as TemplateMissing
from templates_app.errors.conflicts import TreeChanged as TreeChanged
from templates_app.errors.images import NotAnImage as NotAnImage
from templates_app.errors.images import PlatformIncompatible as PlatformIncompatible
from templates_app.errors.images import TreeRefused as TreeRefused
from templates_app.errors.outside import DatabaseUnavailable as DatabaseUnavailable
from templates_app.errors.outside import ImportTimeout as ImportTimeout
from templates_app.errors.outside import Interrupted as Interrupted
from templates_app.errors.outside import OutOfSpace as OutOfSpace
from templates_app.errors.outside import PoolBusy as PoolBusy
from templates_app.errors.outside import PoolUnavailable as PoolUnavailable
from templates_app.errors.outside import ProgramFailed as ProgramFailed
from templates_app.errors.outside import ProgramKilled as ProgramKilled
from templates_app.errors.outside import ProgramMissing as ProgramMissing
from templates_app.errors.outside import PullFailed as PullFailed
from templates_app.errors.outside import RegistryNotAllowed as RegistryNotAllowed
from templates_app.errors.outside import SourceNotAllowed as SourceNotAllowed
from templates_app.errors.outside import StorageReadOnly as StorageReadOnly
from templates_app.errors.outside import Unavailable as Unavailable
from templates_app.errors.trust import GateRefused as GateRefused
from templates_app.errors.trust import KeyMalformed as KeyMalformed
from templates_app.errors.trust import KeyUnfit as KeyUnfit
from templates_app.errors.trust import PassphraseWrong as PassphraseWrong
from templates_app.errors.trust import SignatureIsWithdrawn as SignatureIsWithdrawn
from templates_app.errors.trust import SignatureMalformed as SignatureMalformed
from templates_app.errors.trust import SignatureRejected as SignatureRejected
from templates_app.errors.trust import SigningKeyOutsideDates as SigningKeyOutsideDates
from templates_app.errors.trust import SigningKeyOutsideScope as SigningKeyOutsideScope
from templates_app.errors.trust import SigningKeyRevoked as SigningKeyRevoked
from templates_app.errors.trust import SigningKeyUntrusted as SigningKeyUntrusted
from templates_app.errors.trust import StatementMalformed as StatementMalformed
from templates_app.errors.words import GATE_CODES as GATE_CODES
from templates_app.errors.words import PULL_REASONS as PULL_REASONS


def every_error() -> list[type[CoppiceError]]:
    """All classes of the tree, in the order of definition; the documentation's test uses it."""

    def below(cls: type[CoppiceError]) -> list[type[CoppiceError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    return below(CoppiceError)
