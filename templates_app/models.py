"""Tables: the append-only log, the read models folded from it, and leases of running imports.

Only ``store`` writes ``Event``, ``Mention``; only ``projections`` writes the read models. Triggers
(migrations, ``triggers.py``) make the log append-only for everybody else.
"""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from templates_app.errors import LogIsAppendOnly


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise LogIsAppendOnly("Events are appended by the store, and never changed or deleted.")


class AppendOnly(models.QuerySet["Event"]):
    """Says early, and in words, what the triggers beneath would refuse."""

    create = update = delete = bulk_create = bulk_update = _refuse
    get_or_create = update_or_create = _refuse


class PositionField(models.BigIntegerField):  # type: ignore[type-arg] # none at run time
    """A key that SQLite takes for its own row number: for its one spelling, ``integer``.

    A bigint key would be an index of its own beside the table, one page more for each append.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "integer" if connection.vendor == "sqlite" else super().db_type(connection)


class Event(models.Model):
    """One thing that happened. Never changed, never deleted; see docs/reference/events.md."""

    position = PositionField(primary_key=True)
    event_id = models.UUIDField()  # unique: by an index, and on SQLite by its form (triggers.py)
    stream = models.CharField(max_length=100)
    version = models.PositiveIntegerField()  # on PostgreSQL the trigger has it so, no CHECK
    type = models.CharField(max_length=40)
    schema = models.PositiveSmallIntegerField()  # likewise
    # Text, not jsonb: what is hashed is canonical bytes, and these are they.
    data = models.TextField()
    meta = models.TextField()
    recorded_at = models.DateTimeField()  # no index: ``store.recorded_since`` halves its way there
    leaf_hash = models.CharField(max_length=64)

    objects = AppendOnly.as_manager()
    save = delete = _refuse

    class Meta:
        ordering = ["position"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["stream", "version"], name="event_stream_version")
        ]

    def __str__(self) -> str:
        return f"{self.position} {self.type}"


class Mention(models.Model):
    """Which events are about a thing: the index that histories and provenance are read from."""

    # The key is the whole row: one index, which is also the one that histories are read from. On
    # SQLite it is the table itself (WITHOUT ROWID, migration 0007).
    pk = models.CompositePrimaryKey("kind", "key", "position")
    kind = models.CharField(max_length=16)
    key = models.CharField(max_length=100)
    position = models.BigIntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}@{self.position}"


class Binding(models.Model):
    """Which digests stand in a statement: so a launch is found by all of them."""

    pk = models.CompositePrimaryKey("digest", "statement_digest")
    digest = models.CharField(max_length=71)  # of a tree, or of an image's manifest
    statement_digest = models.CharField(max_length=71)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.digest} in {self.statement_digest}"


class Generation(models.Model):
    """One import of a template (or, number 0, an adopted dataset) as its event told it."""

    # "name@number": a key that a rebuild makes again, so that rebuilt rows are identical.
    id = models.CharField(max_length=80, primary_key=True)
    template_name = models.CharField(max_length=64)
    number = models.PositiveIntegerField()
    position = models.BigIntegerField()  # of the event that made it
    import_id = models.CharField(max_length=36, blank=True)
    adopted = models.BooleanField(default=False)
    scheme = models.CharField(max_length=20, blank=True)
    reference = models.CharField(max_length=600, blank=True)
    floating = models.BooleanField(default=False)
    index_digest = models.CharField(max_length=71, blank=True, db_index=True)
    manifest_digest = models.CharField(max_length=71, blank=True, db_index=True)
    config_digest = models.CharField(max_length=71, blank=True, db_index=True)
    platform = models.CharField(max_length=100, blank=True)
    engine = models.CharField(max_length=20, blank=True)
    dataset = models.CharField(max_length=500)
    origin = models.CharField(max_length=500)
    snapshot_guid = models.CharField(max_length=40)
    size_bytes = models.BigIntegerField()
    entries = models.BigIntegerField()
    tree_digest = models.CharField(max_length=71, db_index=True)
    statement = models.TextField()
    statement_digest = models.CharField(max_length=71, db_index=True)
    deviations = models.JSONField(default=list)
    verdict = models.JSONField(default=dict)
    findings = models.JSONField(default=list)
    milliseconds = models.JSONField(default=dict)
    # Null where the engine did not say: an earlier event's, an adopted dataset's, buildah's.
    fetched_bytes = models.BigIntegerField(null=True)
    cached_bytes = models.BigIntegerField(null=True)
    written_bytes = models.BigIntegerField(null=True)
    imported_at = models.DateTimeField()
    imported_by = models.CharField(max_length=150)
    # What its tag was last found to mean, where that was not what it meant at the import.
    drift = models.CharField(max_length=10, blank=True)  # moved, gone; empty: as at the import
    drift_digest = models.CharField(max_length=71, blank=True)
    drift_since = models.DateTimeField(null=True)
    # Of the event that took its template away and left it here for its clones alone.
    kept_position = models.BigIntegerField(null=True)
    destroyed_position = models.BigIntegerField(null=True)
    retired = models.BooleanField(default=False)  # it went alone, not with its template

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["template_name", "number"], name="generation_number")
        ]

    def __str__(self) -> str:
        return f"{self.template_name} generation {self.number}"


class Template(models.Model):
    """A name and the generation that it points at now."""

    name = models.CharField(max_length=64, primary_key=True)
    current = models.ForeignKey(Generation, on_delete=models.PROTECT, related_name="+")
    snapshot = models.CharField(max_length=500)  # the alias's, as the API calls it
    missing = models.BooleanField(default=False)  # its dataset was not there at the last reload
    position = models.BigIntegerField()  # of the last event that changed this row

    class Meta:
        ordering = ["name"]
        default_permissions = ("view",)
        permissions = [
            ("operate_template", "Can import, destroy and reload templates"),
            ("sign_template", "Can sign templates"),
            ("launch_template", "Can launch and destroy sandboxes"),
        ]

    def __str__(self) -> str:
        return self.name


class Signature(models.Model):
    """An accepted signature over a statement. It serves every generation with that statement."""

    template_name = models.CharField(max_length=64)
    statement_digest = models.CharField(max_length=71, db_index=True)
    key_id = models.CharField(max_length=16)
    key_label = models.CharField(max_length=100)
    public_key = models.CharField(max_length=60)  # base64 of 42 bytes
    signature = models.TextField()
    signed_at = models.DateTimeField()
    signed_by = models.CharField(max_length=150)
    position = models.BigIntegerField(primary_key=True)
    withdrawn_position = models.BigIntegerField(null=True)
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_by = models.CharField(max_length=150, blank=True)
    withdrawn_note = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["position"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(
                fields=["statement_digest", "public_key"], name="signature_once_per_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.key_label} over {self.statement_digest}"


class Key(models.Model):
    """A key that an event trusts or revokes. One that the directory of trusted keys alone has, and
    nobody revoked, has no row."""

    public_key = models.CharField(max_length=60, primary_key=True)  # base64 of 42 bytes
    key_id = models.CharField(max_length=16)
    label = models.CharField(max_length=100)
    owner = models.CharField(max_length=150, blank=True)
    purpose = models.CharField(max_length=20, blank=True)
    not_before = models.DateTimeField(null=True)
    not_after = models.DateTimeField(null=True)
    scope = models.JSONField(default=list)
    predecessor = models.CharField(max_length=60, blank=True)
    # Null where no event trusts it: a key of the directory that was revoked.
    trusted_position = models.BigIntegerField(null=True)
    trusted_at = models.DateTimeField(null=True)
    trusted_by = models.CharField(max_length=150, blank=True)
    revoked_position = models.BigIntegerField(null=True)
    revoked_since = models.BigIntegerField(null=True)  # signatures from this position on
    revoked_reason = models.CharField(max_length=20, blank=True)
    revoked_note = models.CharField(max_length=500, blank=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["label"]
        default_permissions = ()
        permissions = [
            ("trust_key", "Can trust keys"),
            ("revoke_key", "Can revoke keys"),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.key_id})"


class Sandbox(models.Model):
    """A clone that was launched through the gate."""

    id = models.CharField(max_length=64, primary_key=True)
    template_name = models.CharField(max_length=64, db_index=True)
    generation = models.PositiveIntegerField()
    dataset = models.CharField(max_length=500)
    origin = models.CharField(max_length=500)
    signed = models.BooleanField()
    key_id = models.CharField(max_length=16, blank=True)
    gate = models.CharField(max_length=8)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150)
    destroyed_at = models.DateTimeField(null=True)
    position = models.BigIntegerField()

    class Meta:
        ordering = ["created_at", "id"]
        default_permissions = ("view",)
        verbose_name_plural = "sandboxes"

    def __str__(self) -> str:
        return self.id


class Finding(models.Model):
    """What a look at the pool noticed, from the event that found it to the one that cleared it."""

    # "position-number" of the event that found it and of its place there: a rebuild gives the same.
    id = models.CharField(max_length=40, primary_key=True)
    code = models.CharField(max_length=40)  # findings.py says what each means
    subject = models.TextField()  # full name of a dataset
    template_name = models.CharField(max_length=64, blank=True)
    generation = models.PositiveIntegerField(null=True)
    detail = models.TextField()  # as it was seen last
    position = models.BigIntegerField()  # of the event that found it
    found_at = models.DateTimeField()
    seen_position = models.BigIntegerField()  # of the last event that saw it
    cleared_position = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["-position", "id"]
        default_permissions = ("view",)
        indexes = [
            # Asked at each launch: few are open, whatever the history.
            models.Index(
                fields=["template_name", "generation"],
                condition=models.Q(cleared_position__isnull=True),
                name="finding_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.code}: {self.subject}"


class Lease(models.Model):
    """A running import: at most one per template. Not folded from the log; recovery ends it.

    The holder keeps a lock on ``<state>/leases/<import_id>`` for as long as it lives, so that
    whoever gets that lock on the same node knows that it is dead. To other nodes it is dead when
    ``heartbeat_at`` has lapsed.
    """

    template_name = models.CharField(max_length=64, primary_key=True)
    import_id = models.CharField(max_length=36, unique=True)
    node = models.CharField(max_length=63)
    reference = models.CharField(max_length=600)
    generation = models.PositiveIntegerField()
    dataset = models.CharField(max_length=500)  # relative to the pool's root
    actor = models.CharField(max_length=150)
    started_at = models.DateTimeField()
    stage = models.CharField(max_length=20)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True)
    unit = models.CharField(max_length=10, default="bytes")
    layers = models.JSONField(default=list)  # services/progress.py
    updated_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField(db_default=Now())  # by the database's clock

    class Meta:
        default_permissions = ("view",)
        verbose_name = "running import"

    def __str__(self) -> str:
        return f"{self.template_name} ({self.import_id})"
