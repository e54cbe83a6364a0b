"""Shapes of what a look at the pool finds: open findings, and a reload's answer."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers as s

from templates_app import findings


class OpenFinding(s.Serializer[Any]):
    """What a look at the pool noticed, and what to do about it; docs/reference/findings.md."""

    code = s.CharField()
    subject = s.CharField(help_text="The full name of a dataset.")
    template = s.CharField(source="template_name", help_text="Empty where it touches none.")
    generation = s.IntegerField(allow_null=True)
    detail = s.CharField()
    blocks = s.SerializerMethodField()
    nextStep = s.SerializerMethodField()
    position = s.IntegerField(help_text="Of the event that found it.")
    foundAt = s.DateTimeField(source="found_at")
    seenPosition = s.IntegerField(source="seen_position", help_text="Of the last that saw it.")

    def get_blocks(self, row: Any) -> bool:
        """Whether it stops launches of the generation that it touches, where the gate is on."""
        return findings.stops(row.code, generation=row.generation)

    def get_nextStep(self, row: Any) -> str:
        return findings.next_step(row.code, template=row.template_name, subject=row.subject)


class ReloadRequest(s.Serializer[Any]):
    dryRun = s.BooleanField(
        required=False, default=False, help_text="Only say what would be found and repaired."
    )
    fix = s.BooleanField(required=False, default=False, help_text="Repair what is safe.")
    verify = s.BooleanField(
        required=False,
        default=False,
        help_text="Look into the files of every generation: as long as reading them takes.",
    )


class Adopted(s.Serializer[Any]):
    template = s.CharField()
    dataset = s.CharField()
    snapshot = s.CharField()
    snapshotGuid = s.CharField()
    sizeBytes = s.IntegerField()
    entries = s.IntegerField()
    treeDigest = s.CharField()
    statement = s.CharField()
    statementDigest = s.CharField()


class Finding(s.Serializer[Any]):
    code = s.CharField()
    subject = s.CharField(help_text="The full name of a dataset.")
    detail = s.CharField()
    template = s.CharField(allow_null=True)
    generation = s.IntegerField(allow_null=True)
    blocks = s.BooleanField(help_text="Whether it stops launches of the generation it touches.")
    nextStep = s.CharField()


class Fixed(s.Serializer[Any]):
    code = s.CharField()
    subject = s.CharField()
    done = s.CharField(help_text="What was done about it.")
    template = s.CharField(allow_null=True)
    generation = s.IntegerField(allow_null=True)


class Reloaded(s.Serializer[Any]):
    """The difference between pool and log, as the `reloaded` event has it, and what to do."""

    node = s.CharField()
    pool = s.CharField()
    added = Adopted(many=True)
    changed = Adopted(many=True)
    missing = s.ListField(child=s.CharField())
    returned = s.ListField(child=s.CharField())
    findings = Finding(many=True)
    fixed = Fixed(many=True)
    verified = s.BooleanField(help_text="Whether files were looked into.")
    position = s.IntegerField(allow_null=True, help_text="Of the event; null of a dry run.")
