"""A store that is full: what the story (tests/house.py) tells once, here in every state and length.

Keys of each state, findings of each code, refusals with each code, tags that moved, files that
differ, imports at work; names and notes as long as they may be. For looking at the house.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from django.utils import timezone

from templates_app import findings, store
from templates_app.errors import GATE_CODES
from templates_app.events import (
    Attached,
    Check,
    Destroyed,
    Drifted,
    EvidenceAttached,
    Exported,
    Imported,
    KeyRevoked,
    KeyTrusted,
    LoggedIn,
    LoginFailed,
    PolicyChanged,
    RolledBack,
    SandboxDestroyed,
    SandboxRefused,
    Setting,
    SettingChange,
    SignatureWithdrawn,
    Signed,
    TreeChange,
)
from templates_app.events import Finding as Noticed
from templates_app.models import Finding, Lease
from templates_app.trust import signify
from tests import house
from tests.house import digest, failed, imported, launched, layer, meta, reloaded, retired, verified

LONG_NAME = "build-image-of-the-platform-team-with-a-name-as-long-as-it-may-be"[:64]
NOTE = (
    "The notebook on which it was made was left in a train between Vienna and Graz; whoever found"
    " it had the disk, and by the morning after the passphrase could not be ruled out either. "
)
LONG_DATASET = f"zroot/jails/coppice/{LONG_NAME}-g12-3f2a9c01"
SCOPE = ("fbsd14-*", "web", f"{LONG_NAME[:40]}-*")


def stamp(days: int) -> str:
    at = timezone.now() + datetime.timedelta(days=days)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Key:
    """A key pair that nobody signs with, and what events say of it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.public = signify.SecretKey.load(signify.generate(label).secret).public_key

    def trusted(
        self,
        owner: str,
        *,
        start: str | None = None,
        end: str | None = None,
        scope: tuple[str, ...] = ("*",),
        after: Key | None = None,
    ) -> KeyTrusted:
        return KeyTrusted(
            key_id=self.public.key_id,
            label=self.label,
            public_key=self.public.text,
            owner=owner,
            purpose="templates",
            not_before=start,
            not_after=end,
            scope=scope,
            predecessor=after.public.text if after else None,
            announcement="untrusted comment: announced\nRWQ=\n" if after else None,
        )

    def revoked(self, reason: str, *, note: str, since: int | None = None) -> KeyRevoked:
        return KeyRevoked(
            key_id=self.public.key_id,
            label=self.label,
            public_key=self.public.text,
            reason=reason,
            since=since,
            note=note,
            templates=("fbsd14-min", LONG_NAME),
            sandboxes=tuple(f"build-{number}" for number in range(30)),
        )

    def signed(self, of: Imported) -> Signed:
        return Signed(
            template=of.template,
            generation=of.generation,
            statement_digest=of.statement_digest,
            tree_digest=of.tree_digest,
            manifest_digest=of.digests.manifest,
            key_id=self.public.key_id,
            key_label=self.label,
            public_key=self.public.text,
            signature=f"untrusted comment: by {self.label}\n{'QUJD' * 24}\n",
        )


def refused(of: Imported, code: str) -> SandboxRefused:
    passed = Check(name="dataset_present", passed=True, reason="It is on the pool.")
    open_ = Check(
        name="no_blocking_finding",
        passed=code != "finding_open",
        reason="No finding that stops launches is open."
        if code != "finding_open"
        else f"tree_changed (event 17): 12 added, 3 removed, 1 changed in {LONG_DATASET}@base",
        code=None if code != "finding_open" else code,
        next_step=None if code != "finding_open" else "Look at: coppice tpl findings",
    )
    last = Check(
        name="signed",
        passed=code == "finding_open",
        reason=f"{GATE_CODES[code]} Looked at 3 signatures, by {'release-engineering ' * 4}.",
        code=code if code != "finding_open" else None,
        next_step=f"Sign it: coppice tpl sign {of.template}",
    )
    return SandboxRefused(
        template=of.template,
        generation=of.generation,
        code=code,
        tree_digest=of.tree_digest,
        statement_digest=of.statement_digest,
        manifest_digest=of.digests.manifest,
        checks=(passed, open_, last),
    )


class Crowd(house.Story):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.keys: dict[str, Key] = {}  # by state
        root = place / "pool"
        self.long1 = imported(LONG_NAME, 1, root=root, reference=f"{house.LONG}:{'v1' * 40}")
        self.long2 = imported(LONG_NAME, 2, root=root, reference=f"{house.LONG}:{'v2' * 40}")
        self.many = [
            imported(f"{base}-{number}", 1, root=root)
            for base in ("alpine", "debian", "fbsd15-min")
            for number in range(1, 5)
        ]
        self.big = self.refused = self.policy = 0  # positions of events that hold much
        self.withdrawn = 0  # of a signature
        self.findings: dict[str, Any] = {}  # key of the open finding of each code

    def tell(self) -> None:
        super().tell()
        self._templates()
        self._keys()
        self._launches()
        self._tags_and_files()
        self._findings()
        self._server()
        self._imports()

    def _templates(self) -> None:
        run = meta(actor="nightly@builds.example.org", source="command", request="req-nightly-2")
        store.append([*self.many, self.long1, self.long2], meta=run)
        for template, stage, code, reason in (
            ("alpine-9", "pull", "pull_failed", "unreachable"),
            (LONG_NAME, "copy", "out_of_space", None),
            ("debian-1", "digest", "interrupted", None),
        ):
            told = failed(
                template,
                stage=stage,
                code=code,
                reason=reason,
                detail=f"{code} at {stage}: {house.LONG} did not answer. {NOTE}",
                leftovers=(LONG_DATASET,) if code == "interrupted" else (),
            )
            store.append(told, meta=run)
        gone = self.many[-1]
        store.append(
            Destroyed(
                template=gone.template,
                generation=1,
                datasets=(gone.dataset,),
                manifest_digest=gone.digests.manifest,
                kept=(1,),
            ),
            meta=meta(),
        )
        store.append(
            RolledBack(
                template=LONG_NAME,
                generation=1,
                before=2,
                tree_digest=self.long1.tree_digest,
                statement_digest=self.long1.statement_digest,
                manifest_digest=self.long1.digests.manifest,
            ),
            meta=meta(),
        )
        store.append(retired("fbsd14-min", 1), meta=meta("sweep", "command"))

    def _keys(self) -> None:
        made = self.keys
        for state, label in (
            ("trusted", "release-2026"),
            ("early", "release-2027"),
            ("expired", "release-2024"),
            ("superseded", "release-2025"),
            ("compromised", "key-with-a-label-as-long-as-it-may-be_" + "x" * 26),
        ):
            made[state] = Key(label)
        owner = "Release engineering of the platform team, Vienna <release@example.org>"
        who = meta("olivia")
        store.append(made["superseded"].trusted(owner), meta=who)
        store.append(made["expired"].trusted(owner, end=stamp(-30)), meta=who)
        store.append(made["compromised"].trusted(owner, scope=SCOPE), meta=who)
        for state in ("superseded", "compromised"):
            store.append(made[state].signed(self.long1), meta=meta("sigrid"))
        (withdrawn,) = store.append(made["expired"].signed(self.long1), meta=meta("sigrid"))
        self.withdrawn = withdrawn.position
        late = stamp(400)
        store.append(made["trusted"].trusted(owner, end=late, after=made["superseded"]), meta=who)
        store.append(made["early"].trusted(owner, start=stamp(30), end=late), meta=who)
        store.append(made["trusted"].signed(self.many[0]), meta=meta("sigrid"))
        store.append(
            made["superseded"].revoked("superseded", note="The next one is in use."), meta=who
        )
        store.append(
            made["compromised"].revoked("compromised", note=NOTE * 2, since=self.withdrawn - 1),
            meta=who,
        )
        store.append(
            SignatureWithdrawn(
                template=LONG_NAME,
                generation=1,
                statement_digest=self.long1.statement_digest,
                tree_digest=self.long1.tree_digest,
                manifest_digest=self.long1.digests.manifest,
                key_id=made["expired"].public.key_id,
                key_label=made["expired"].label,
                public_key=made["expired"].public.text,
                signed_position=self.withdrawn,
                note=NOTE,
                templates=(LONG_NAME,),
                sandboxes=("nightly-1", "nightly-2"),
            ),
            meta=meta("sigrid"),
        )

    def _launches(self) -> None:
        gateway = meta("gateway-7.eu-central.jails.example.org")
        for code in GATE_CODES:
            (told,) = store.append(refused(self.long1, code), meta=gateway)
            self.refused = told.position
        for number in range(12):
            of = self.many[number % 4]
            store.append(launched(f"nightly-{number}", of, signed=number % 2 == 0), meta=gateway)
        store.append(launched("x" * 64, self.long1), meta=gateway)
        for number in (3, 4):
            gone = SandboxDestroyed(
                sandbox=f"nightly-{number}",
                template=self.many[number].template,
                dataset=f"zroot/jails/sandbox-nightly-{number}",
            )
            store.append(gone, meta=gateway)

    def _tags_and_files(self) -> None:
        clock = meta("root", "command")
        for of, state in ((self.many[0], "moved"), (self.many[1], "gone"), (self.long1, "moved")):
            found = digest(f"{of.template} moved") if state == "moved" else None
            drifted = Drifted(
                template=of.template,
                generation=of.generation,
                reference=of.reference,
                state=state,
                before="current",
                imported_digest=str(of.digests.index),
                found_digest=found,
            )
            store.append(drifted, meta=clock)
        store.append(verified(self.many[0].template), meta=clock)
        odd = verified(LONG_NAME, result="differs")
        changes = tuple(
            TreeChange(
                path=f"./usr/local/lib/python3.11/site-packages/package_{number}/module.py",
                change="added",
                grave=(),
                fields=(),
            )
            for number in range(19)
        )
        odd = verified(
            LONG_NAME,
            result="differs",
            detail="12 added, 3 removed, 1 changed: ./usr/bin/su",
            differences=odd.differences + changes,
        )
        (told,) = store.append(odd, meta=clock)
        self.big = told.position
        items = tuple(
            Attached(
                kind=kind,
                media_type=f"application/vnd.dev.{kind}.v0.3+json",
                digest=digest(f"attached {kind}"),
                subject=self.long1.digests.manifest,
                through="referrers",
                size_bytes=5120,
                kept=(digest(f"attached {kind}"),),
                verified_by=("cosign-release",) if kind == "signature" else (),
                detail="" if kind == "signature" else "No key of ours has signed it. " + NOTE,
            )
            for kind in ("signature", "attestation", "sbom")
        )
        attached = EvidenceAttached(
            template=LONG_NAME,
            generation=1,
            reference=self.long1.reference,
            manifest_digest=self.long1.digests.manifest,
            items=items,
            missing=("The referrers of the index could not be read: 502.",),
        )
        store.append(attached, meta=clock)

    def _findings(self) -> None:
        def noticed(code: str) -> Noticed:
            touched = findings.KINDS[code].blocks
            return Noticed(
                code=code,
                subject=f"{LONG_DATASET}-{code}",
                detail=f"Expected guid 1234567890123456789, found 9876543210987654321. {NOTE}",
                template=LONG_NAME if touched or code.startswith("alias") else None,
                generation=1 if touched else None,
            )

        gone = Noticed(code="orphan_dataset", subject="zroot/jails/coppice/old", detail="Unknown.")
        store.append(
            reloaded(findings=(gone,), missing=("debian-2",)), meta=meta("root", "command")
        )
        every = tuple(noticed(code) for code in findings.KINDS)
        store.append(
            reloaded(findings=every, verified=True, missing=("debian-2",)),
            meta=meta("root", "command"),
        )
        open_ = Finding.objects.filter(cleared_position__isnull=True)
        self.findings = {one.code: one.pk for one in open_}
        self.findings["cleared"] = Finding.objects.exclude(pk__in=open_)[0].pk

    def _server(self) -> None:
        server = meta("coppice", "server")
        settings = tuple(
            Setting(name=f"COPPICE_LIMIT_{word}", value=str(2**40))
            for word in ("IMAGE_BYTES", "ENTRIES", "CACHE_BYTES", "LAYERS_BYTES")
        )
        changes = (
            SettingChange(name="COPPICE_REQUIRE_SIGNED_TEMPLATES", before="off", after="on"),
            SettingChange(name="COPPICE_REGISTRIES_ALLOWED", before=house.LONG, after=None),
            SettingChange(name="trusted-keys/release.pub", before=None, after="RWQ" + "x" * 53),
            SettingChange(name="COPPICE_GATE_EXEMPT", before=None, after="scratch-*"),
        )
        told = store.append(
            [
                PolicyChanged(node="jail1.eu-central", changes=changes, settings=settings),
                LoggedIn(user="audrey", address="2001:db8:85a3:8d3:1319:8a2e:370:7348"),
                LoginFailed(user=None, address="203.0.113.9", unrecorded=41),
                Exported(
                    what="evidence", events=12, first=3, last=88, question="template=" + LONG_NAME
                ),
            ],
            meta=server,
        )
        self.policy = told[0].position

    def _imports(self) -> None:
        now = timezone.now()
        for template, stage, done, total in (
            (LONG_NAME, "copy", 31_000_000, None),
            ("alpine-1", "digest", 0, None),
        ):
            Lease.objects.create(
                template_name=template,
                import_id=digest(template)[-8:],
                node="jail1.eu-central.jails.example.org",
                reference=f"{house.LONG}:latest",
                generation=13,
                dataset=f"coppice/{template}-g13-77b0e4d2",
                actor="nightly@builds.example.org",
                started_at=now - datetime.timedelta(seconds=312),
                stage=stage,
                done=done,
                total=total,
                layers=[
                    layer(number, "done" if number < 9 else "pull", 2**number, 2**12, number * 977)
                    for number in range(1, 14)
                ]
                if total is None and done
                else [],
                updated_at=now,
            )


class Nothing(house.Story):
    """What is not told."""

    def tell_of_the_signed(self) -> dict[str, Any]:
        for name in ("pool", "state", "trusted"):
            (self.place / name).mkdir()
        return {
            "COPPICE_POOL": f"dir:{self.place / 'pool'}",
            "COPPICE_STATE_DIR": self.place / "state",
            "COPPICE_TRUSTED_KEYS": self.place / "trusted",
            "COPPICE_REQUIRE_SIGNED_TEMPLATES": "on",
        }

    def tell(self) -> None:
        """There is nothing to tell."""
