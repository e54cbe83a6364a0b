"""A store with a story, for the tests of the auditors' house: events of realistic content, two of
them real (a hand-made template on a directory pool, adopted and signed with the real signify).

What an image, a registry or a caller chose holds markup: wherever it is shown, it must be text.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from html import unescape
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client, override_settings
from django.utils import timezone

from templates_app import store
from templates_app.events import (
    Check,
    Destroyed,
    Deviation,
    Digests,
    FieldChange,
    Imported,
    ImportFailed,
    Meta,
    Recorded,
    Reloaded,
    Retired,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
    TreeChange,
    Verdict,
    Verified,
)
from templates_app.events import Finding as Noticed
from templates_app.models import Finding, Lease
from templates_app.services import reload, signing
from templates_app.trust import statement
from tests.servers import Keys

TABLE = "/admin/templates_app"
SCRIPT = "<script>alert('owned')</script>"
LONG = "registry.builds.example.org:5000/" + "platform/team-with-a-long-name/" * 5 + "image"
REQUEST = "req-of-the-nightly-run"


def digest(word: str) -> str:
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


def meta(actor: str = "olivia", source: str = "api", request: str = "") -> Meta:
    request_id = request or uuid.uuid4().hex
    return Meta(actor=actor, source=source, request_id=request_id, node="jail1")


def imported(name: str, generation: int = 1, **changes: Any) -> Imported:
    """An import as the pipeline records it."""
    image = str(changes.pop("image", f"{name} {generation}"))
    root = str(changes.pop("root", "zroot/jails"))
    digests = Digests(
        index=digest(f"index {image}"),
        manifest=digest(f"manifest {image}"),
        config=digest(f"config {image}"),
    )
    reference = changes.get("reference", f"quay.io/dougrabson/{name}:latest")
    deviations = (Deviation(path="etc/resolv.conf", reason="planted", sha256=digest("dns")),)
    text = statement.build(
        template=name,
        tree_digest=digest(f"tree {image}"),
        canonical_reference=reference,
        platform="freebsd/amd64",
        digests=digests,
        exclusions=("/dev/*", "/proc/*"),
        deviations=deviations,
    ).decode()
    import_id = hashlib.sha256(f"{name}{generation}".encode()).hexdigest()[:8]
    dataset = f"{root}/coppice/{name}-g{generation}-{import_id}"
    facts: dict[str, Any] = {
        "template": name,
        "generation": generation,
        "import_id": import_id,
        "reference": reference,
        "reference_given": reference,
        "scheme": "oci",
        "floating": True,
        "digests": digests,
        "platform": "freebsd/amd64",
        "engine": "buildah",
        "pool": f"dir:{root}",
        "dataset": dataset,
        "origin": f"{dataset}@base",
        "snapshot_guid": "1234567890123456789",
        "alias": f"{root}/{name}-template",
        "snapshot": f"{root}/{name}-template@base",
        "size_bytes": 164822016,
        "entries": 812,
        "tree_digest": digest(f"tree {image}"),
        "statement": text,
        "statement_digest": statement.digest(text.encode()),
        "deviations": deviations,
        "verdict": Verdict(
            result="native",
            abis=("freebsd/amd64",),
            config_platform="freebsd/amd64",
            reason="All programs are for freebsd/amd64.",
        ),
        "findings": (),
        "forced": generation > 1,
        "milliseconds": {"resolve": 210, "pull": 5400, "copy": 2100, "digest": 800},
        "fetched_bytes": 40_000_000,
        "cached_bytes": 8_000_000,
        "written_bytes": 160_000_000,
    }
    return Imported(**{**facts, **changes})


def verified(name: str, generation: int = 1, **changes: Any) -> Verified:
    """A look into the files of a generation; what differs is the program that anybody runs."""
    of = imported(name, generation)
    su = TreeChange(
        path="./usr/bin/su",
        change="changed",
        grave=("set-id",),
        fields=(FieldChange(name="sha256", before="ab" * 32, after="cd" * 32),),
    )
    differs = changes.get("result", "matches") == "differs"
    facts: dict[str, Any] = {
        "template": name,
        "generation": generation,
        "dataset": of.dataset,
        "result": "matches",
        "detail": "0 added, 0 removed, 1 changed: ./usr/bin/su" if differs else "",
        "tree_digest": of.tree_digest,
        "found_digest": digest("other") if differs else of.tree_digest,
        "snapshot_guid": of.snapshot_guid,
        "excepted": (),
        "entries": of.entries,
        "size_bytes": of.size_bytes,
        "added": 0,
        "removed": 0,
        "changed": int(differs),
        "grave": int(differs),
        "differences": (su,) if differs else (),
        "statement_digest": of.statement_digest,
        "manifest_digest": of.digests.manifest,
        "milliseconds": 1800,
    }
    return Verified(**{**facts, **changes})


def layer(number: int, state: str, done: int, total: int, entries: int = 0) -> dict[str, Any]:
    """As a lease's row has it (services/progress.py)."""
    return {
        "layer": number, "state": state, "bytes": done, "totalBytes": total, "entries": entries,
    }  # fmt: skip


def failed(name: str, **changes: Any) -> ImportFailed:
    facts: dict[str, Any] = {
        "template": name,
        "import_id": uuid.uuid4().hex[:8],
        "reference": f"quay.io/dougrabson/{name}:latest",
        "stage": "pull",
        "code": "pull_failed",
        "reason": "corrupt",
        "detail": "A layer is not what its digest says.",
        "digest": digest(f"manifest {name} broken"),
        "undone": (f"zroot/jails/coppice/{name}-g1-00000000",),
        "leftovers": (),
    }
    return ImportFailed(**{**facts, **changes})


def launched(sandbox: str, of: Imported, *, signed: bool = False) -> SandboxCreated:
    return SandboxCreated(
        sandbox=sandbox,
        template=of.template,
        generation=of.generation,
        dataset=f"zroot/jails/sandbox-{sandbox}",
        origin=of.origin,
        tree_digest=of.tree_digest,
        statement_digest=of.statement_digest,
        manifest_digest=of.digests.manifest,
        gate="on" if signed else "off",
        signed=signed,
        key_id="0123456789abcdef" if signed else None,
        failed_checks=() if signed else ("template_unsigned",),
    )


def refused(of: Imported) -> SandboxRefused:
    return SandboxRefused(
        template=of.template,
        generation=of.generation,
        code="template_unsigned",
        tree_digest=of.tree_digest,
        statement_digest=of.statement_digest,
        manifest_digest=of.digests.manifest,
        checks=(
            Check(name="dataset_present", passed=True, reason="It is on the pool."),
            Check(
                name="signed",
                passed=False,
                reason="Generation 1's statement has no signature.",
                code="template_unsigned",
                next_step=f"Sign it: coppice tpl sign {of.template}",
            ),
        ),
    )


def strange(
    type_: str,
    data: str,
    template: str,
    at: datetime.datetime | None = None,
    *,
    digest: str = "",
) -> int:
    """An event that this program cannot read, as a newer one could have written it."""
    keys = [("template", template), ("type", type_)] + [("digest", digest)] * bool(digest)
    with transaction.atomic(), connection.cursor() as cursor:
        position = store.size() + 1
        cursor.execute(
            "INSERT INTO templates_app_event (position, event_id, stream, version, type, schema,"
            " data, meta, recorded_at, leaf_hash) VALUES (%s, %s, %s, 1, %s, 9, %s, %s, %s, %s)",
            [
                position,
                uuid.uuid4().hex,
                f"strange:{position}",
                type_,
                data,
                json.dumps({"actor": "a newer program"}),
                connection.ops.adapt_datetimefield_value(at or timezone.now()),
                "ab" * 32,
            ],
        )
        cursor.executemany(
            "INSERT INTO templates_app_mention (kind, key, position) VALUES (%s, %s, %s)",
            [(*key, position) for key in keys],
        )
    return position


def retired(name: str, generation: int) -> Retired:
    of = imported(name, generation)
    return Retired(
        template=name,
        generation=generation,
        dataset=of.dataset,
        tree_digest=of.tree_digest,
        statement_digest=of.statement_digest,
        manifest_digest=of.digests.manifest,
    )


def reloaded(**changes: Any) -> Reloaded:
    """A reload that found nothing but ``changes``."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("added", "changed", "missing", "returned", "findings"), ()
    )
    return Reloaded(node="jail1", pool="zfs:zroot/jails", **{**nothing, **changes})


def changed_tree(name: str, generation: int, detail: str = "etc/motd differs.") -> Noticed:
    """A finding that stops launches of the generation."""
    return Noticed(
        code="tree_changed",
        subject=f"zroot/jails/coppice/{name}-g{generation}",
        detail=detail,
        template=name,
        generation=generation,
    )


class Story:
    """What was told, by name, for tests to look up."""

    def __init__(self, place: Path) -> None:
        self.place, root = place, place / "pool"
        self.min1 = imported("fbsd14-min", root=root)
        self.min2 = imported("fbsd14-min", 2, root=root)
        self.hostile = imported(
            "hostile",
            root=root,
            reference=f"{LONG}:{'v1' * 40}",
            findings=(f"etc/{SCRIPT} is a link out of the tree", "2 programs are foreign"),
            verdict=Verdict(
                result="foreign",
                abis=("linux/amd64",),
                config_platform=SCRIPT,
                reason=f"Its programs are for linux/amd64. {SCRIPT}",
            ),
        )
        self.gone = imported("gone", root=root)
        self.lost = imported("lost", root=root)
        self.broken = failed("broken", reason=SCRIPT, detail=f"The registry said: {SCRIPT}")
        self.strange = 0
        self.signed: Recorded | None = None
        self.stopping = ""  # id of the finding that stops launches

    def tell(self) -> None:
        run = meta(actor="nightly", source="command", request=REQUEST)
        store.append(self.min1, meta=meta())
        store.append(launched("build-7", self.min1), meta=meta("gateway-1"))
        store.append([self.gone, self.lost], meta=run)
        store.append(self.broken, meta=run)
        store.append(self.min2, meta=run)
        store.append(refused(self.min2), meta=meta("gateway-1"))
        store.append(self.hostile, meta=meta(actor=SCRIPT))
        destroyed = Destroyed(
            template="gone",
            generation=1,
            datasets=(self.gone.dataset,),
            manifest_digest=self.gone.digests.manifest,
        )
        store.append(destroyed, meta=meta())
        store.append(
            SandboxDestroyed(
                sandbox="build-7", template="fbsd14-min", dataset="zroot/jails/sandbox-build-7"
            ),
            meta=meta("gateway-1"),
        )
        store.append(launched("build-8", self.min2), meta=meta("gateway-1"))
        store.append(
            reloaded(
                missing=("lost",),
                findings=(
                    Noticed(code="orphan", subject=SCRIPT, detail="Nobody knows it."),
                    changed_tree("hostile", 1, detail=f"etc/{SCRIPT} differs."),
                ),
            ),
            meta=meta(source="cli"),
        )
        self.stopping = Finding.objects.get(code="tree_changed").pk
        self.strange = strange("template-praised", '{"praise": "<script>x</script>"}', "lost")
        Lease.objects.create(
            template_name="fbsd14-min",
            import_id="77b0e4d2",
            node="jail1",
            reference="quay.io/dougrabson/fbsd14-min:latest",
            generation=3,
            dataset="coppice/fbsd14-min-g3-77b0e4d2",
            actor="olivia",
            started_at=timezone.now() - datetime.timedelta(seconds=12),
            stage="pull",
            done=12_000_000,
            total=48_000_000,
            layers=[
                layer(1, "kept", 0, 30_000_000),
                layer(2, "copy", 4_000_000, 4_000_000, 4711),
                layer(3, "pull", 8_000_000, 20_000_000),
                layer(4, "waiting", 0, 24_000_000),
            ],
            updated_at=timezone.now(),
        )

    def tell_of_the_signed(self) -> dict[str, Any]:
        """A real template on a real pool, adopted and signed: the settings that go with it."""
        root, trusted = self.place / "pool", self.place / "trusted"
        keys = Keys(self.place / "keys")
        (root / "house-template@base" / "etc").mkdir(parents=True)
        (root / "house-template@base" / "etc" / "motd").write_text("made by hand")
        trusted.mkdir(exist_ok=True)
        secret = keys.make("release")
        (trusted / "release.pub").write_bytes(secret.with_suffix(".pub").read_bytes())
        settings = {
            "COPPICE_POOL": f"dir:{root}",
            "COPPICE_STATE_DIR": self.place / "state",
            "COPPICE_TRUSTED_KEYS": trusted,
            "COPPICE_REQUIRE_SIGNED_TEMPLATES": "on",
        }
        (self.place / "state").mkdir(exist_ok=True)
        with override_settings(**settings):
            reload.reload(context=meta())
            signature = keys.sign(secret, signing.statement(name="house"))
            self.signed = signing.sign(name="house", signature=signature, context=meta("sigrid"))
        return settings


def visitor(name: str, *roles: str, staff: bool = True, superuser: bool = False) -> Client:
    """Somebody of these roles who is logged in."""
    user = User.objects.create(username=name, is_staff=staff, is_superuser=superuser)
    user.groups.set(Group.objects.filter(name__in=roles))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def auditor() -> Client:
    return visitor("audrey", "auditor")


def superuser() -> Client:
    return visitor("root", superuser=True)


def text(response: Any) -> str:
    """What a reader sees: no tags, one space between words."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))
