"""Whatever the history: the read models say what it says, and can be made from it again."""

import dataclasses
from collections import defaultdict

import hypothesis.strategies as st
from django.db import transaction
from hypothesis import HealthCheck, given, settings

from templates_app import lifecycle, projections, store
from templates_app.errors import CoppiceError
from templates_app.events import (
    Adopted,
    Destroyed,
    Finding,
    Reloaded,
    Retired,
    RolledBack,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
    Signed,
)
from templates_app.models import (
    Binding,
    Event,
    Generation,
    Mention,
    Sandbox,
    Signature,
    Template,
)
from templates_app.services import audit, readmodels
from tests import house

NAMES = ("web", "db")
STEPS = st.one_of(
    st.tuples(st.just("import"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("destroy"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("roll_back"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("sweep"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("sign"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("launch"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("end"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("reload"), st.sets(st.sampled_from(NAMES)), st.booleans()),
)


class History:
    """Takes the steps that are legal at the time, by the rules that the use cases ask."""

    def __init__(self):
        self.states = {name: lifecycle.TemplateState(name=name) for name in NAMES}
        self.images = {}
        self.sandboxes = defaultdict(list)
        self.count = 0

    def take(self, step, what, flag):
        """The event of this step. Raises the use case's error where it is not legal now."""
        self.count += 1
        event = getattr(self, f"_{step}")(what, flag)
        self.states = {n: lifecycle.evolve(state, event) for n, state in self.states.items()}
        return event

    def _import(self, name, other):
        number = lifecycle.next_generation(self.states[name], force=other)
        image = f"{name} {self.count if other else 0}"
        aside = f"zroot/jails/coppice/{name}-g0" if 0 in self.states[name].generations else None
        event = house.imported(name, number, image=image, moved_aside=aside)
        self.images[name, number] = event
        return event

    def _fail(self, name, _):
        return house.failed(name)

    def _destroy(self, name, _):
        state = self.states[name]
        current = lifecycle.current(state)
        return Destroyed(
            template=name,
            generation=current.number,
            datasets=tuple(one.dataset for one in state.generations.values()),
            manifest_digest=current.manifest_digest,
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

    def _reload(self, there, _):
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
            findings=(Finding(code="orphan", subject="x", detail="Nobody knows it."),),
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
        assert {(row.template_name, row.number, row.dataset) for row in live} == {
            (name, number, one.dataset)
            for name, state in history.states.items()
            for number, one in state.generations.items()
        }
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
    Mention.objects.filter(kind="sandbox").delete()
    return "Mention sandbox:web-2@2: the row is gone"


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
