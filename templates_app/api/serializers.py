"""Shapes of the wire: camelCase keys, one class per thing. Requests and answers are apart."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers as s

from templates_app.api.shapes_findings import OpenFinding
from templates_app.services import common, drift
from templates_app.services.audit import Entry
from templates_app.services.generations import GenerationRow
from templates_app.services.queries import DigestFacts, ImportStatus, TemplateRow

#: Schemas of texts with a grammar (names.py): for readers of the document, the use case decides.
NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"}
DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


@extend_schema_field(NAME)
class Name(s.CharField):
    """The name of a template or sandbox."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=64, trim_whitespace=False, **kwargs)


class ImportRequest(s.Serializer[Any]):
    name = Name()
    # `from` is a keyword of Python: declared by get_fields below.
    force = s.BooleanField(required=False, default=False)

    def get_fields(self) -> dict[str, s.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["from"] = s.CharField(
            max_length=1024,
            trim_whitespace=False,
            help_text="scheme:reference, for example oci:quay.io/project/image:1.0,"
            " or oci-archive:/srv/images/base.txz, a path of the server's host",
        )
        return fields


class RollbackRequest(s.Serializer[Any]):
    to = s.IntegerField(
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        help_text="The generation that becomes current; the one before, where nothing is said.",
    )


class SignatureRequest(s.Serializer[Any]):
    signature = s.CharField(
        max_length=4096, trim_whitespace=False, help_text="The whole .sig file that signify wrote."
    )


class SandboxRequest(s.Serializer[Any]):
    template = Name()
    name = Name(required=False)


class Digests(s.Serializer[Any]):
    """All null for a hand-made template; `index` also where the tag pointed at no index."""

    index = s.CharField(source="index_digest", allow_null=True)
    manifest = s.CharField(source="manifest_digest", allow_null=True)
    config = s.CharField(source="config_digest", allow_null=True)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {key: value or None for key, value in super().to_representation(instance).items()}


class Deviation(s.Serializer[Any]):
    path = s.CharField()
    reason = s.CharField()
    sha256 = s.CharField(allow_null=True)


class Verdict(s.Serializer[Any]):
    result = s.ChoiceField(choices=["native", "foreign", "mixed", "none"])
    abis = s.ListField(child=s.CharField())
    configPlatform = s.CharField()
    reason = s.CharField()


class Template(s.Serializer[TemplateRow]):
    name = s.CharField(source="template.name")
    snapshot = s.CharField(source="template.snapshot")
    sizeBytes = s.IntegerField(source="template.current.size_bytes")
    generation = s.IntegerField(source="template.current.number")
    origin = s.CharField(source="template.current.origin")
    reference = s.CharField(source="template.current.reference", allow_blank=True)
    floating = s.BooleanField(source="template.current.floating")
    digest = s.SerializerMethodField()
    digests = Digests(source="template.current")
    treeDigest = s.CharField(source="template.current.tree_digest")
    statementDigest = s.CharField(source="template.current.statement_digest")
    platform = s.CharField(source="template.current.platform", allow_blank=True)
    engine = s.CharField(source="template.current.engine", allow_blank=True)
    entries = s.IntegerField(source="template.current.entries")
    milliseconds = s.DictField(
        source="template.current.milliseconds",
        child=s.IntegerField(),
        help_text="What each stage of the import took.",
    )
    fetchedBytes = s.IntegerField(source="template.current.fetched_bytes", allow_null=True)
    cachedBytes = s.IntegerField(source="template.current.cached_bytes", allow_null=True)
    writtenBytes = s.IntegerField(source="template.current.written_bytes", allow_null=True)
    verdict = s.SerializerMethodField()
    deviations = Deviation(source="template.current.deviations", many=True)
    findings = s.ListField(
        source="template.current.findings",
        child=s.CharField(),
        help_text="What the import of this generation noticed.",
    )
    openFindings = OpenFinding(source="findings", many=True)
    drift = s.SerializerMethodField()
    adopted = s.BooleanField(source="template.current.adopted")
    missing = s.BooleanField(source="template.missing")
    signed = s.BooleanField()
    blocked = s.SerializerMethodField()
    importedAt = s.DateTimeField(source="template.current.imported_at")
    importedBy = s.CharField(source="template.current.imported_by")
    position = s.IntegerField(source="template.position")

    def get_digest(self, row: TemplateRow) -> str | None:
        """The manifest digest: what was unpacked. Null for an adopted template."""
        return row.template.current.manifest_digest or None

    def get_drift(self, row: TemplateRow) -> str:
        """What its tag was last found to mean: current, moved, gone; pinned where it has none."""
        return drift.word(row.template.current)

    def get_verdict(self, row: TemplateRow) -> dict[str, Any] | None:
        return row.template.current.verdict or None

    def get_blocked(self, row: TemplateRow) -> bool:
        """Whether the gate would refuse it; `GET …/gate` has the reasons."""
        mode = common.gate_policy().mode_for(row.template.name)
        return row.template.missing or (mode == "on" and (row.stopped or not row.signed))


class Generation(s.Serializer[GenerationRow]):
    generation = s.IntegerField(source="generation.number")
    current = s.BooleanField()
    signed = s.BooleanField()
    reference = s.CharField(source="generation.reference", allow_blank=True)
    digest = s.SerializerMethodField()
    treeDigest = s.CharField(source="generation.tree_digest")
    statementDigest = s.CharField(source="generation.statement_digest")
    origin = s.CharField(source="generation.origin")
    sizeBytes = s.IntegerField(source="generation.size_bytes")
    adopted = s.BooleanField(source="generation.adopted")
    importedAt = s.DateTimeField(source="generation.imported_at")
    importedBy = s.CharField(source="generation.imported_by")
    clones = s.ListField(child=s.CharField(), help_text="Datasets that keep it in use.")
    kept = s.BooleanField(help_text="It stays for its clones alone: its template was destroyed.")

    def get_digest(self, row: GenerationRow) -> str | None:
        """The manifest digest. Null for a hand-made one."""
        return row.generation.manifest_digest or None


class Event(s.Serializer[Any]):
    position = s.IntegerField()
    eventId = s.UUIDField(source="event_id")
    stream = s.CharField()
    version = s.IntegerField()
    type = s.CharField()
    schema = s.IntegerField()
    data = s.SerializerMethodField()  # type: ignore[assignment]  # Serializer.data is a property
    meta = s.SerializerMethodField()
    recordedAt = s.DateTimeField(source="recorded_at")
    leafHash = s.CharField(source="leaf_hash")
    sentence = s.SerializerMethodField()

    def get_data(self, one: Any) -> dict[str, Any]:
        data: dict[str, Any] = one.data if isinstance(one, Entry) else one.event.to_json()
        return data

    def get_meta(self, one: Any) -> dict[str, Any]:
        meta: dict[str, Any] = one.meta if isinstance(one, Entry) else one.meta.to_json()
        return meta

    def get_sentence(self, one: Any) -> str:
        return one.sentence if isinstance(one, Entry) else str(one.event.sentence())


class Feed(s.Serializer[Any]):
    events = Event(many=True)
    after = s.IntegerField(help_text="Ask for events after this position next.")


class Consistency(s.Serializer[Any]):
    first = s.IntegerField(help_text="Events in the earlier tree.")
    second = s.IntegerField(help_text="Events in the later tree.")
    firstRoot = s.CharField(help_text="base64, as in checkpoints.")
    secondRoot = s.CharField()
    hashes = s.ListField(child=s.CharField(), help_text="The proof, in the RFC's order; base64.")


class Signature(s.Serializer[Any]):
    statementDigest = s.CharField(source="statement_digest")
    template = s.CharField(source="template_name")
    keyId = s.CharField(source="key_id")
    keyLabel = s.CharField(source="key_label")
    signedAt = s.DateTimeField(source="signed_at")
    signedBy = s.CharField(source="signed_by")
    position = s.IntegerField()
    withdrawnPosition = s.IntegerField(
        source="withdrawn_position", allow_null=True, help_text="Null while it stands."
    )


class Check(s.Serializer[Any]):
    name = s.CharField()
    passed = s.BooleanField()
    reason = s.CharField()
    code = s.CharField(allow_null=True)
    nextStep = s.CharField(allow_null=True)


class GateDecision(s.Serializer[Any]):
    template = s.CharField()
    generation = s.IntegerField()
    mode = s.ChoiceField(choices=["on", "warn", "off"])
    exempt = s.CharField(
        allow_null=True, help_text="The pattern of COPPICE_GATE_EXEMPT that makes it warn."
    )
    allowed = s.BooleanField()
    signed = s.BooleanField()
    keyId = s.CharField(allow_null=True)
    keyLabel = s.CharField(allow_null=True)
    statementDigest = s.CharField()
    treeDigest = s.CharField()
    code = s.CharField(allow_null=True)
    checks = Check(many=True)


class Sandbox(s.Serializer[Any]):
    id = s.CharField()
    template = s.CharField(source="template_name")
    generation = s.IntegerField()
    dataset = s.CharField()
    origin = s.CharField()
    signed = s.BooleanField()
    gate = s.CharField()
    createdAt = s.DateTimeField(source="created_at")
    createdBy = s.CharField(source="created_by")


class GenerationFacts(s.Serializer[Any]):
    template = s.CharField(source="template_name")
    generation = s.IntegerField(source="number")
    reference = s.CharField()
    origin = s.CharField()
    digests = Digests(source="*")
    treeDigest = s.CharField(source="tree_digest")
    statementDigest = s.CharField(source="statement_digest")
    importedAt = s.DateTimeField(source="imported_at")
    importedBy = s.CharField(source="imported_by")
    destroyed = s.SerializerMethodField()

    def get_destroyed(self, generation: Any) -> bool:
        return generation.destroyed_position is not None


class Attached(s.Serializer[Any]):
    """What a registry holds about an image. That it is there says nothing of what it says."""

    kind = s.CharField(help_text="signature, attestation, sbom, other")
    mediaType = s.CharField(source="media_type", allow_blank=True)
    digest = s.CharField(help_text="Of its manifest.")
    subject = s.CharField(help_text="The image's digest under which it was found.")
    through = s.CharField(help_text="referrers, or tag")
    sizeBytes = s.IntegerField(source="size_bytes")
    kept = s.ListField(child=s.CharField(), help_text="What of it is kept here.")
    verifiedBy = s.ListField(
        source="verified_by", child=s.CharField(), help_text="Labels of configured cosign keys."
    )
    detail = s.CharField(allow_blank=True)


class Provenance(s.Serializer[DigestFacts]):
    digest = s.CharField()
    kinds = s.ListField(child=s.CharField())
    generations = GenerationFacts(many=True)
    signatures = Signature(many=True)
    sandboxes = Sandbox(many=True)
    attached = Attached(many=True)
    events = Event(many=True)


class Layer(s.Serializer[Any]):
    """One layer of the image, the lowest first; bytes as transferred."""

    layer = s.IntegerField(help_text="From 1.")
    state = s.ChoiceField(
        choices=["waiting", "pull", "copy", "done", "kept"],
        help_text="kept: an earlier import had left it, and nothing had to be done.",
    )
    bytes = s.IntegerField()
    totalBytes = s.IntegerField(allow_null=True)
    entries = s.IntegerField(help_text="Written so far.")


class RunningImport(s.Serializer[ImportStatus]):
    state = s.ChoiceField(choices=["running", "imported", "failed"])
    importId = s.SerializerMethodField()
    stage = s.CharField(source="lease.stage", default=None, allow_null=True)
    done = s.IntegerField(source="lease.done", default=None, allow_null=True)
    total = s.IntegerField(source="lease.total", default=None, allow_null=True)
    unit = s.CharField(source="lease.unit", default=None, allow_null=True)
    layers = Layer(many=True, source="lease.layers", default=())
    startedAt = s.DateTimeField(source="lease.started_at", default=None, allow_null=True)
    actor = s.SerializerMethodField()
    event = Event(source="ended", allow_null=True)

    def get_importId(self, status: ImportStatus) -> str:
        if status.lease is not None:
            return status.lease.import_id
        return str(getattr(status.ended.event, "import_id", "")) if status.ended else ""

    def get_actor(self, status: ImportStatus) -> str:
        if status.lease is not None:
            return status.lease.actor
        return status.ended.meta.actor if status.ended else ""


class Kept(s.Serializer[Any]):
    generation = s.IntegerField()
    dataset = s.CharField()
    clones = s.ListField(child=s.CharField(), help_text="What it stays for.")


class Destroying(s.Serializer[Any]):
    datasets = s.ListField(child=s.CharField(), help_text="What goes.")
    kept = Kept(many=True)


class Health(s.Serializer[Any]):
    status = s.CharField()


class Checkpoint(s.Serializer[Any]):
    """The newest signed checkpoint of the log."""

    ageSeconds = s.IntegerField()
    behind = s.IntegerField(help_text="Events since.")


class Readiness(s.Serializer[Any]):
    status = s.CharField()
    checks = s.DictField(child=s.CharField())
    checkpoint = Checkpoint(
        allow_null=True, help_text="Null: none was signed, or none is to be had."
    )


class Problem(s.Serializer[Any]):
    """RFC 9457 problem details. `code` is stable; further members depend on it."""

    type = s.CharField()
    title = s.CharField()
    status = s.IntegerField()
    code = s.CharField()
    detail = s.CharField()
    nextStep = s.CharField(allow_blank=True)
    requestId = s.CharField()


class LaunchRefused(Problem):
    """What the gate's refusal adds: its whole decision, as `GET /templates/{name}/gate` has it."""

    template = s.CharField(required=False)
    generation = s.IntegerField(required=False)
    mode = s.ChoiceField(choices=["on", "warn", "off"], required=False)
    exempt = s.CharField(allow_null=True, required=False)
    allowed = s.BooleanField(required=False)
    signed = s.BooleanField(required=False)
    keyId = s.CharField(allow_null=True, required=False)
    keyLabel = s.CharField(allow_null=True, required=False)
    statementDigest = s.CharField(required=False)
    treeDigest = s.CharField(required=False)
    checks = Check(many=True, required=False)
