"""Shapes of keys on the wire: what is asked, and what a key and a revocation look like."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers as s

from templates_app.api.openapi import MAX_POSITION
from templates_app.services import keys
from templates_app.services.keys import KeyFacts, Revoked
from templates_app.services.signing import Withdrawn


class KeyRevocation(s.Serializer[Any]):
    reason = s.ChoiceField(source="revoked_reason", choices=list(keys.REASONS))
    since = s.IntegerField(
        source="revoked_since", help_text="What was signed at this position or later is refused."
    )
    note = s.CharField(source="revoked_note", allow_blank=True)
    revokedAt = s.DateTimeField(source="revoked_at")
    revokedBy = s.CharField(source="revoked_by")
    position = s.IntegerField(source="revoked_position")


class Key(s.Serializer[KeyFacts]):
    keyId = s.CharField(source="key.public_key.key_id")
    label = s.CharField(source="key.label")  # type: ignore[assignment]  # Field has a label too
    publicKey = s.CharField(
        source="key.public_key.text", help_text="The second line of its .pub file."
    )
    state = s.ChoiceField(choices=list(keys.STATES))
    owner = s.CharField(source="row.owner", default="", allow_blank=True)
    notBefore = s.DateTimeField(source="key.not_before", allow_null=True)
    notAfter = s.DateTimeField(source="key.not_after", allow_null=True)
    scope = s.ListField(source="key.scope", child=s.CharField())
    inDirectory = s.BooleanField(
        source="in_directory", help_text="Its .pub file is where COPPICE_TRUSTED_KEYS points."
    )
    predecessor = s.CharField(
        source="row.predecessor", default="", allow_blank=True, help_text="A public key."
    )
    signatures = s.IntegerField(help_text="Stored ones, whether they count or not.")
    trustedAt = s.DateTimeField(source="row.trusted_at", default=None, allow_null=True)
    trustedBy = s.CharField(source="row.trusted_by", default="", allow_blank=True)
    position = s.IntegerField(source="row.trusted_position", default=None, allow_null=True)
    revocation = KeyRevocation(source="revoked", allow_null=True)


class TrustRequest(s.Serializer[Any]):
    publicKey = s.CharField(
        max_length=4096, trim_whitespace=False, help_text="The whole .pub file of signify."
    )
    label = s.CharField(max_length=64, trim_whitespace=False)  # type: ignore[assignment]
    owner = s.CharField(max_length=150, trim_whitespace=False)
    notBefore = s.DateTimeField(required=False)
    notAfter = s.DateTimeField(required=False)
    scope = s.ListField(
        child=s.CharField(max_length=64, trim_whitespace=False),
        required=False,
        max_length=keys.MOST_PATTERNS,
        help_text="Patterns of template names, such as prod-*. Every name where it is empty.",
    )
    predecessor = s.CharField(
        max_length=64, required=False, help_text="Number or label of the key that announces it."
    )
    announcement = s.CharField(
        max_length=4096,
        trim_whitespace=False,
        required=False,
        help_text="The predecessor's .sig file over the text of: coppice key announcement",
    )


class RevokeRequest(s.Serializer[Any]):
    reason = s.ChoiceField(choices=list(keys.REASONS))
    since = s.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_POSITION,
        help_text="For compromised: what was signed at this position or later is refused."
        " Everything, where nothing is said.",
    )
    note = s.CharField(max_length=500, required=False, allow_blank=True, trim_whitespace=False)
    dryRun = s.BooleanField(required=False, default=False)


class RevokedTemplate(s.Serializer[Any]):
    template = s.CharField()
    generation = s.IntegerField()
    code = s.CharField(help_text="What the gate says of it then.")
    refused = s.BooleanField(help_text="Whether a launch is refused: the gate may be off or warn.")


class RevokedSandbox(s.Serializer[Any]):
    id = s.CharField()
    template = s.CharField(source="template_name")
    generation = s.IntegerField()
    dataset = s.CharField()
    createdAt = s.DateTimeField(source="created_at")
    createdBy = s.CharField(source="created_by")


class Revocation(s.Serializer[Revoked]):
    """What a revocation changes, or would change."""

    keyId = s.CharField(source="key.public_key.key_id")
    label = s.CharField(source="key.label")  # type: ignore[assignment]  # Field has a label too
    reason = s.CharField()
    since = s.IntegerField()
    templates = RevokedTemplate(many=True, source="radius.templates")
    sandboxes = RevokedSandbox(many=True, source="radius.sandboxes")
    position = s.IntegerField(
        source="recorded.position", default=None, allow_null=True, help_text="Null: a dry run."
    )


class Withdrawal(s.Serializer[Withdrawn]):
    """What the withdrawal of a signature changes, or would change."""

    template = s.CharField(source="signature.template_name")
    keyId = s.CharField(source="signature.key_id")
    keyLabel = s.CharField(source="signature.key_label")
    statementDigest = s.CharField(source="signature.statement_digest")
    templates = RevokedTemplate(many=True, source="radius.templates")
    sandboxes = RevokedSandbox(many=True, source="radius.sandboxes")
    position = s.IntegerField(
        source="recorded.position", default=None, allow_null=True, help_text="Null: a dry run."
    )
