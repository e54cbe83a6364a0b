"""Whatever the history: the read models say what it says, and can be made from it again."""

import dataclasses
from collections import defaultdict

import hypothesis.strategies as st
from django.db import transaction
from hypothesis import HealthCheck, given, settings

from templates_app import findings, lifecycle, projections, store
from templates_app.errors import CoppiceError
from templates_app.events import (
    Adopted,
    Destroyed,
    Drifted,
    Finding,
    KeyRevoked,
    KeyTrusted,
    Reloaded,
    Retired,
    RolledBack,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
    SignatureWithdrawn,
    Signed,
    Verified,
)
from templates_app.models import (
    Binding,
    Event,
    Generation,
    Key,
    Mention,
    Sandbox,
    Signature,
    Template,
)
from templates_app.services import audit, noticed, readmodels
from tests import house

NAMES = ("web", "db")
KEYS = ("A", "B")
STEPS = st.one_of(
    st.tuples(st.just("import"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("destroy"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("roll_back"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("sweep"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("drift"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("sign"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("withdraw"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("launch"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("trust"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("revoke"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("end"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(
        st.just("verify"),
        st.sampled_from(NAMES),
        st.sampled_from(["matches", "differs", "unreadable"]),
    ),
    st.tuples(st.just("reload"), st.sets(st.sampled_from(NAMES)), st.booleans()),
)


class History:
    """Takes the steps that are legal at the time, by the rules that the use cases ask."""

    def __init__(self):
        self.states = {name: lifecycle.TemplateState(name=name) for name in NAMES}
        self.images = {}
        self.sandboxes = defaultdict(list)
        self.drifts = {}  # (name, generation) -> what its tag moved to
        self.findings = {}  # (code, subject) -> (template, generation), of the open ones
        self.trusted, self.revoked = {}, {}
        self.count = 0

    def take(self, step, what, flag):
        """The event of this step. Raises the use case's error where it is not legal now."""
        self.count += 1
        event = getattr(self, f"_{step}")(what, flag)
        self.states = {n: lifecycle.evolve(state, event) for n, state in self.states.items()}
        if isinstance(event, Reloaded):
            kept = {k: v for k, v in self.findings.items() if k[0] in findings.DEEP}
            seen = {(f.code, f.subject): (f.template, f.generation) for f in event.findings}
            self.findings = {**({} if event.verified else kept), **seen}
        if isinstance(event, Verified):
            of = event.template, event.generation
            codes = ("tree_changed", "not_verified")
            if event.result == "unreadable":
                codes = ("not_verified",)  # what was wrong may still be
            seen = {(f.code, f.subject): of for f in event.findings()}
            self.findings = {
                k: v for k, v in self.findings.items() if v != of or k[0] not in codes
            } | seen
        there = {(n, number) for n, state in self.states.items() for number in state.generations}
        self.findings = {k: v for k, v in self.findings.items() if v in there or v[0] is None}
        return event

    def _import(self, name, other):
        number = lifecycle.next_generation(self.states[name], force=other)
        image = f"{name} {self.count if other else 0}"
        by_hand = any(not one.number for one in lifecycle.own(self.states[name]))
        aside = f"zroot/jails/coppice/{name}-g0" if by_hand else None
        event = house.imported(name, number, image=image, moved_aside=aside)
        self.images[name, number] = event
        return event

    def _fail(self, name, _):
        return house.failed(name)

    def _destroy(self, name, retire):
        state = self.states[name]
        current = lifecycle.current(state)
        used = {one.number for one in lifecycle.own(state) if retire and one.number % 2}
        kept = used | {one.number for one in lifecycle.kept(state)}
        gone = [one for number, one in state.generations.items() if number not in kept]
        return Destroyed(
            template=name,
            generation=current.number,
            datasets=tuple(one.dataset for one in gone),
            manifest_digest=current.manifest_digest,
            kept=tuple(sorted(kept)),
        )

    def _roll_back(self, name, _):
        state = self.states[name]
        target = lifecycle.rollback_target(state, None)
        return RolledBack(
            template=name,
            generation=target.number,
            before=lifecycle.current(state).number,
            tree_digest=target.tree_digest,
            statement_digest=target.statement_digest,
            manifest_digest=target.manifest_digest,
        )

    def _verify(self, name, result):
        current = lifecycle.current(self.states[name])
        return house.verified(
            name,
            current.number,
            result=result,
            dataset=current.dataset,
            tree_digest=current.tree_digest,
            statement_digest=current.statement_digest,
            manifest_digest=current.manifest_digest,
        )

    def _sweep(self, name, _):
        go = lifecycle.sweepable(self.states[name], retain=0)
        if not go:
            raise CoppiceError("there is none")
        return Retired(
            template=name,
            generation=go[0].number,
            dataset=go[0].dataset,
            tree_digest=go[0].tree_digest,
            statement_digest=go[0].statement_digest,
            manifest_digest=go[0].manifest_digest,
        )

    def _drift(self, name, back):
        current = lifecycle.current(self.states[name])
        if current.adopted:
            raise CoppiceError("it has no tag")
        key = name, current.number
        before, now = self.drifts.get(key), None if back else house.digest(f"moved {self.count}")
        self.drifts[key] = now
        return Drifted(
            template=name,
            generation=key[1],
            reference=f"quay.io/x/{name}:1",
            state="moved" if now else "current",
            before="moved" if before else "current",
            imported_digest=house.digest("imported"),
            found_digest=now or house.digest("imported"),
        )

    def _sign(self, name, other_key):
        current = lifecycle.current(self.states[name])
        return Signed(
            template=name,
            generation=current.number,
            statement_digest=current.statement_digest,
            tree_digest=current.tree_digest,
            manifest_digest=current.manifest_digest,
            key_id="0123456789abcdef",
            key_label="release",
            public_key="B" if other_key else "A",
            signature=f"signature {self.count}",
        )

    def _withdraw(self, name, other_key):
        current = lifecycle.current(self.states[name])
        return SignatureWithdrawn(
            template=name,
            generation=current.number,
            statement_digest=current.statement_digest,
            tree_digest=current.tree_digest,
            manifest_digest=current.manifest_digest,
            key_id="0123456789abcdef",
            key_label="release",
            public_key="B" if other_key else "A",
            signed_position=self.count,
            note="",
            templates=(name,),
            sandboxes=(),
        )

    def _trust(self, key, limited):
        # Also of one that is revoked, which no use case does: the revocation must stay.
        self.trusted[key] = ["web"] if limited else ["*"]
        return KeyTrusted(
            key_id="0123456789abcdef",
            label=f"release {key}",
            public_key=key,
            owner="Alice",
            purpose="templates",
            not_before=None,
            not_after="2027-01-01T00:00:00Z" if limited else None,
            scope=tuple(self.trusted[key]),
            predecessor=None,
            announcement=None,
        )

    def _revoke(self, key, all_of_it):
        self.revoked[key] = 1 if all_of_it else None
        return KeyRevoked(
            key_id="0123456789abcdef",
            label=f"release {key}",
            public_key=key,
            reason="compromised" if all_of_it else "superseded",
            since=self.revoked[key],
            note="",
            templates=(),
            sandboxes=(),
        )

    def _launch(self, name, refuse):
        current = lifecycle.launchable(self.states[name])
        of = self.images.get((name, current.number))
        if of is None:  # a hand-made one
            return dataclasses.replace(
                house.refused(house.imported(name)),
                tree_digest=current.tree_digest,
                statement_digest=current.statement_digest,
                manifest_digest=current.manifest_digest,
            )
        if refuse:
            return house.refused(of)
        sandbox = f"{name}-{self.count}"
        self.sandboxes[name].append(sandbox)
        return house.launched(sandbox, of)

    def _end(self, name, _):
        if not self.sandboxes[name]:
            raise CoppiceError("there is none")
        sandbox = self.sandboxes[name].pop()
        return SandboxDestroyed(sandbox=sandbox, template=name, dataset=f"zroot/{sandbox}")

    def _reload(self, there, deep):
        states = self.states
        adopted = {name: self._by_hand(name) for name in NAMES}
        return Reloaded(
            node="jail1",
            pool="zfs:zroot/jails",
            added=tuple(adopted[n] for n in NAMES if n in there and not states[n].exists),
            changed=tuple(
                adopted[n]
                for n in NAMES
                if n in there and states[n].exists and states[n].current.adopted
            ),
            missing=tuple(n for n in NAMES if n not in there and states[n].exists),
            returned=tuple(n for n in NAMES if n in there and states[n].missing),
            findings=tuple(self._found(there, deep)),
            verified=deep,
        )

    def _found(self, there, deep):
        """What lies there of nobody's, and what is wrong with what is somebody's."""
        if self.count % 2:
            yield Finding(code="orphan_dataset", subject="x", detail=f"Look {self.count}.")
        for name in NAMES:
            for number, one in self.states[name].generations.items():
                code = "guid_changed" if name in there else "dataset_missing"
                if deep and (self.count + number) % 3 == 0:
                    code = "tree_changed"
                if (self.count + number) % 2:
                    yield Finding(
                        code=code,
                        subject=one.dataset,
                        detail=f"Look {self.count}.",
                        template=name,
                        generation=number,
                    )

    def _by_hand(self, name):
        return Adopted(
            template=name,
            dataset=f"zroot/jails/{name}-template",
            snapshot=f"zroot/jails/{name}-template@base",
            snapshot_guid=str(self.count),
            size_bytes=1024,
            entries=1,
            tree_digest=house.digest(f"tree by hand {self.count % 3}"),
            statement=f"statement {self.count % 3}",
            statement_digest=house.digest(f"statement by hand {self.count % 3}"),
        )


def named(event):
    """Every digest that the event names; launches are indexed by their statement's alone."""
    found = {key for kind, key in event.mentions() if kind == "digest"}
    if isinstance(event, SandboxCreated | SandboxRefused):
        found |= {event.tree_digest, event.manifest_digest} - {None}
    return found


def tell(steps):
    """Append what is legal of ``steps``: one by one, or (every second pair) two at a time."""
    history, batch = History(), []
    for number, step in enumerate(steps):
        try:
            batch.append(history.take(*step))
        except CoppiceError:
            continue
        if number % 4 < 3:
            store.append(batch, meta=house.meta())
            batch = []
    store.append(batch, meta=house.meta())
    return history


@given(steps=st.lists(STEPS, min_size=15, max_size=30))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_read_models_say_what_the_history_says(any_database, steps):
    with transaction.atomic():
        history = tell(steps)
        events = list(store.read())

        assert [one.position for one in events] == list(range(1, len(events) + 1))
        versions = defaultdict(list)
        for one in events:
            versions[one.stream].append(one.version)
        assert all(found == list(range(1, len(found) + 1)) for found in versions.values())

        # As lifecycle.py understands the events, which shares no code with the projections.
        assert {row.name: (row.current.number, row.missing) for row in Template.objects.all()} == {
            name: (state.current.number, state.missing)
            for name, state in history.states.items()
            if state.exists
        }
        live = Generation.objects.filter(destroyed_position=None)
        assert {
            (row.template_name, row.number, row.dataset, row.kept_position is not None)
            for row in live
        } == {
            (name, number, one.dataset, one.kept)
            for name, state in history.states.items()
            for number, one in state.generations.items()
        }
        drifts = Generation.objects.exclude(drift="")
        assert {((row.template_name, row.number), row.drift_digest) for row in drifts} == {
            (key, digest) for key, digest in history.drifts.items() if digest
        }
        open_rows = noticed.open_rows().values_list(
            "code", "subject", "template_name", "generation"
        )
        assert sorted(open_rows, key=str) == sorted(
            ((*key, name or "", number) for key, (name, number) in history.findings.items()),
            key=str,
        )
        keys = {row.public_key: row for row in Key.objects.all()}
        assert set(keys) == {*history.trusted, *history.revoked}
        for key, row in keys.items():
            assert (row.trusted_position is not None) is (key in history.trusted)
            assert (row.revoked_position is not None) is (key in history.revoked)
            assert row.scope == history.trusted.get(key, ["*"])
            if key in history.revoked:
                assert row.revoked_since == (history.revoked[key] or row.revoked_position)
        running = Sandbox.objects.filter(destroyed_at=None).values_list("id", flat=True)
        assert sorted(running) == sorted(sum(history.sandboxes.values(), []))

        # A digest is answered by every event that names it, also where an index says so by another.
        about = defaultdict(list)
        for one in events:
            for digest in named(one.event):
                about[digest].append(one.position)
        for digest, positions in about.items():
            assert [one.position for one in store.about("digest", digest)] == positions
            naming = Event.objects.filter(audit.naming(digest)).order_by("position")
            assert [row.position for row in naming] == positions

        # And from the log alone they come out the same, row by row and column by column.
        before = projections.rows()
        assert readmodels.rebuild() == len(events)
        assert projections.rows() == before
        assert readmodels.check() == (len(events), [])
        transaction.set_rollback(True)


def tamper_template():
    Template.objects.filter(name="web").update(missing=True)
    return "Template web: missing differ"


def tamper_generation():
    Generation.objects.filter(pk="web@1").update(tree_digest=house.digest("other"))
    return "Generation web@1: tree_digest differ"


def invent_signature():
    Signature.objects.create(
        position=99,
        template_name="web",
        statement_digest=house.digest("s"),
        key_id="0" * 16,
        key_label="x",
        public_key="x",
        signature="x",
        signed_at=Generation.objects.get(pk="web@1").imported_at,
        signed_by="x",
    )
    return "Signature 99: a row that the log does not give"


def lose_sandbox():
    Sandbox.objects.all().delete()
    return "Sandbox web-2: the row is gone"


def lose_mention():
    Mention.objects.filter(kind="template").delete()
    return "Mention template:web@2: the row is gone"


def lose_binding():
    Binding.objects.filter(digest=house.digest("tree web 0")).delete()
    statement = house.imported("web", image="web 0").statement_digest
    return f"Binding {house.digest('tree web 0')} in {statement}: the row is gone"


def test_a_check_finds_every_row_that_was_tampered_with(any_database):
    tell([("import", "web", False), ("launch", "web", False)])
    assert readmodels.check() == (2, [])
    for tamper in (
        tamper_template,
        tamper_generation,
        invent_signature,
        lose_sandbox,
        lose_mention,
        lose_binding,
    ):
        said = tamper()
        assert readmodels.check() == (2, [said])
        assert readmodels.check() == (2, [said]), "a check mends nothing"
        readmodels.rebuild()
        assert readmodels.check() == (2, [])
