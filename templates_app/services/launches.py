"""The gate's decision, and sandboxes: clones that were launched through it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from django.db import Error, connection, transaction
from django.utils import timezone

from templates_app import gate, lifecycle, projections, sql, store
from templates_app.datasets.base import (
    Clone,
    DatasetDriver,
    Snapshot,
    alias_name,
    sandbox_name,
)
from templates_app.errors import (
    GATE_CODES,
    CoppiceError,
    EventConflict,
    GateRefused,
    MalformedName,
    PoolBusy,
    SandboxExists,
    TemplateInUse,
    TemplateMissing,
)
from templates_app.events import (
    KeyRevoked,
    KeyTrusted,
    Meta,
    Recorded,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
    SignatureWithdrawn,
)
from templates_app.models import Generation, Sandbox
from templates_app.names import TemplateName
from templates_app.projections import generation_key
from templates_app.services import (
    common,
    intents,
    keyring,
    noticed,
    policy,
    queries,
    ready,
    ready_keeper,
)
from templates_app.services.ready import Ready

logger = logging.getLogger("coppice.launches")

#: Events after which a decision that was made before them counts no more.
OVERTAKES = (KeyRevoked.type, KeyTrusted.type, SignatureWithdrawn.type)


_STANDS = "SELECT 1 FROM templates_app_generation WHERE id = %s AND destroyed_position IS NULL"


class _OvertakenError(Exception):
    """One of OVERTAKES was recorded between the decision and the launch."""


def decide(
    name: str, generation: lifecycle.GenerationState, live: Snapshot | None
) -> gate.Decision:
    """The gate's decision on one generation, from the keys and the log as they are now."""
    signatures = keyring.signatures(name, generation.statement_digest)
    asked = common.gate_policy()
    return gate.decide(
        name=name,
        generation=generation,
        live=live,
        signatures=signatures,
        keys=keyring.known(one.public_key for one in signatures) if signatures else (),
        noticed=noticed.touching(name, generation.number),
        importer=_importer(name, generation.number) if asked.two_persons else "",
        policy=asked,
        now=timezone.now(),
    )


def _importer(name: str, number: int) -> str:
    rows = Generation.objects.filter(pk=generation_key(name, number))
    return rows.values_list("imported_by", flat=True).get()


def gate_decision(*, name: str) -> gate.Decision:
    template = TemplateName.parse(name)
    generation = lifecycle.current(common.state_of(template.text))
    return decide(template.text, generation, live(common.driver(), generation))


def live(driver: DatasetDriver, generation: lifecycle.GenerationState) -> Snapshot | None:
    """A generation's @base as it is on the pool now."""
    return driver.snapshot(common.relative(driver, generation.dataset))


def create_sandbox(*, template: str, name: str | None, context: Meta) -> Recorded:
    """Clone the current generation through the gate; returns the ``sandbox-created`` event.

    Raises GateRefused (with the decision, after a ``sandbox-refused`` event), TemplateNotFound,
    TemplateMissing, SandboxExists, SandboxBusy, and what the pool raises.
    """
    policy.look()
    parsed = TemplateName.parse(template)
    sandbox_id = None if name is None else _sandbox_id(name)
    for attempt in range(common.ATTEMPTS):
        state = common.state_of(parsed.text)
        try:
            return _launch(state, sandbox_id, context)
        except _OvertakenError:
            continue
        except (EventConflict, TemplateMissing):
            if attempt == common.ATTEMPTS - 1 or not _swept(state):
                raise
    raise EventConflict(f"Keys change all the time while {parsed} is launched.")


def launched(recorded: Recorded) -> Sandbox:
    """The sandbox as :func:`create_sandbox` made it, without another question to the database."""
    if not isinstance(recorded.event, SandboxCreated):
        raise TypeError(f"{recorded.event.type} is no launch")
    return projections.launched(recorded.event, recorded)


def _swept(seen: lifecycle.TemplateState) -> bool:
    """Whether the generation that was current then is gone, and another one is current.

    It was replaced and swept under our feet, which is no reason to fail: the newer one is launched.
    """
    now = common.state_of(seen.name)
    return (
        seen.current is not None
        and now.current is not None
        and seen.current.number not in now.generations
    )


def _sandbox_id(name: str) -> str:
    if name.endswith(alias_name("")):
        # The dataset of sandbox "x-template" would be the alias of a template "sandbox-x".
        raise MalformedName(f"A sandbox's name may not end in {alias_name('')}.")
    return TemplateName.parse(name).text


def _launch(state: lifecycle.TemplateState, sandbox_id: str | None, context: Meta) -> Recorded:
    """``sandbox_id``: None to have one drawn."""
    generation = lifecycle.current(state)
    driver = common.driver()
    overtaken = store.last_of(OVERTAKES)
    # Decided as if the pool had what the log says: whether it has, is asked once, after the clone,
    # when it cannot change any more. Nobody is refused that would be allowed, nor the reverse.
    recorded = Snapshot(name=generation.origin, guid=generation.snapshot_guid, size_bytes=0)
    seen = live(driver, generation) if state.missing else recorded
    decision = decide(state.name, generation, seen)
    if not decision.allowed:
        raise _refuse(driver, state, generation, context)
    lifecycle.launchable(state)
    with _place(driver, generation, sandbox_id) as place:
        clone = _clone(driver, place, state, generation, context)
        try:
            if clone.origin.guid != recorded.guid:  # the snapshot was made anew
                decision = decide(state.name, generation, clone.origin)
                if not decision.allowed:
                    raise _refuse(driver, state, generation, context)
            if place.drawn:
                ready_keeper.keeper.ask(
                    driver, generation
                )  # while this one is recorded and answered
            event = _record(place, clone, decision, overtaken, state, generation, context)
        except BaseException:
            _take_back(driver, place.sandbox_id)
            raise
        intents.forget(place.sandbox_id)
        return event


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a launch goes."""

    sandbox_id: str
    version: int  # of its stream
    drawn: bool  # the id was drawn for this launch, so nothing was ever called so
    ready: Ready | None = None


@contextmanager
def _place(
    driver: DatasetDriver, generation: lifecycle.GenerationState, sandbox_id: str | None
) -> Iterator[_Place]:
    """Held alone. SandboxExists, SandboxBusy for an id that is given."""
    if sandbox_id is not None:
        with intents.alone(sandbox_id):
            yield _Place(sandbox_id, _free(sandbox_id), drawn=False)
    else:
        awaited = partial(ready_keeper.keeper.awaited, generation.origin)
        with ready.taken(driver, generation, awaited) as (fresh, waiting):
            yield _Place(fresh, 0, drawn=True, ready=waiting)


def _clone(
    driver: DatasetDriver,
    place: _Place,
    state: lifecycle.TemplateState,
    generation: lifecycle.GenerationState,
    context: Meta,
) -> Clone:
    """The one that was ready, or a new one; noted as this launch's. GateRefused; the pool's."""
    sandbox_id = place.sandbox_id
    earlier = intents.note(sandbox_id, generation.origin)
    if place.ready is not None:
        place.ready.note.forget()
        return place.ready.clone
    try:
        relative = common.relative(driver, generation.dataset)
        return driver.clone(relative, sandbox_name(sandbox_id), drawn=place.drawn)
    except CoppiceError as error:
        # With the note, a clone that somebody else makes later would be taken for this one.
        if isinstance(error, SandboxExists | TemplateMissing) or _is_off(driver, sandbox_id):
            intents.forget(sandbox_id, earlier)
        if isinstance(error, TemplateMissing):
            raise _refuse(driver, state, generation, context) from None
        raise


def _free(sandbox_id: str) -> int:
    """The version of its stream, for which the name is to be free still. SandboxExists."""
    version = store.stream_version(f"sandbox:{sandbox_id}")
    if _is_there(sandbox_id) or sandbox_id in ready.ids():  # then it will be there
        raise SandboxExists(f"There is a sandbox {sandbox_id}.")
    return version


def _is_there(sandbox_id: str) -> bool:
    return Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).exists()


def _is_off(driver: DatasetDriver, sandbox_id: str) -> bool:
    """Whether the pool certainly has no clone of this name."""
    try:
        return sandbox_name(sandbox_id) not in {one.relative for one in driver.find_all()}
    except CoppiceError:
        return False


def _take_back(driver: DatasetDriver, sandbox_id: str) -> None:
    """Remove the clone of a launch that failed, unless the log has it all the same.

    What cannot be done now, or be known (the database is away), recovery does by the note. The
    error that ended the launch is the one to be told, not ours.
    """
    try:
        connection.close_if_unusable_or_obsolete()
        store.settled()  # the server may still be at the commit that it was told
        if not _is_there(sandbox_id):
            driver.destroy(sandbox_name(sandbox_id))
        intents.forget(sandbox_id)
    except (CoppiceError, Error) as error:
        logger.error("the clone of sandbox %s is left for recovery: %s", sandbox_id, error)


def _record(
    place: _Place,
    clone: Clone,
    decision: gate.Decision,
    overtaken: int,
    state: lifecycle.TemplateState,
    generation: lifecycle.GenerationState,
    context: Meta,
) -> Recorded:
    event = SandboxCreated(
        sandbox=place.sandbox_id,
        template=state.name,
        generation=generation.number,
        dataset=clone.name,
        origin=generation.origin,
        tree_digest=generation.tree_digest,
        statement_digest=generation.statement_digest,
        manifest_digest=generation.manifest_digest,
        gate=decision.mode,
        signed=decision.signed,
        key_id=decision.key_id,
        failed_checks=decision.failed_codes,
    )
    stream = event.stream()
    try:
        with transaction.atomic():
            (recorded,) = store.append([event], meta=context, expected={stream: place.version})
            # Under the log's lock: a destroy that came first has taken the generation away. A
            # newer generation is no reason to refuse: this one was current when we decided.
            key = generation_key(state.name, generation.number)
            if not sql.rows(_STANDS, [key]):
                raise EventConflict(f"{state.name} was destroyed while it was launched.")
            # And a key that was revoked, or trusted for less, has taken its ground away.
            if store.last_of(OVERTAKES) != overtaken:
                raise _OvertakenError
    except EventConflict as conflict:
        if conflict.extra.get("stream") == stream:
            raise SandboxExists(f"There is a sandbox {place.sandbox_id}.") from conflict
        raise
    return recorded


def _refuse(
    driver: DatasetDriver,
    state: lifecycle.TemplateState,
    generation: lifecycle.GenerationState,
    context: Meta,
) -> CoppiceError:
    """What to raise instead of a launch, with its event: the decision on what the pool has now."""
    if _swept(state):
        return TemplateMissing(f"Generation {generation.number} of {state.name} was just removed.")
    decision = decide(state.name, generation, live(driver, generation))
    if decision.allowed:
        return PoolBusy(f"The snapshot of {state.name} changed while it was launched.")
    code = decision.code or "template_unsigned"
    store.append(
        [
            SandboxRefused(
                template=decision.template,
                generation=decision.generation,
                code=code,
                tree_digest=decision.tree_digest,
                statement_digest=decision.statement_digest,
                manifest_digest=generation.manifest_digest,
                checks=decision.checks,
            )
        ],
        meta=context,
    )
    return refusal(decision)


def refusal(decision: gate.Decision) -> GateRefused:
    """What a decision against it is raised as."""
    code = decision.code or "template_unsigned"
    failed = next(check for check in decision.checks if not check.passed)
    return GateRefused(
        f"{decision.template}: {failed.reason or GATE_CODES[code]}",
        gate_code=code,
        hint=failed.next_step,
        extra={"decision": decision.to_json()},
    )


def destroy_sandbox(*, sandbox_id: str, context: Meta) -> Recorded:
    """Destroy the clone, then say so. A repeated call finds nothing: SandboxNotFound.

    What ends it in between, recovery finishes by the note.
    """
    row = queries.sandbox(sandbox_id=sandbox_id)
    # Alone: of two calls at once the second must not destroy what was launched after the first.
    with intents.alone(row.id):
        row = queries.sandbox(sandbox_id=row.id)
        version = store.stream_version(f"sandbox:{row.id}")
        driver = common.driver()
        relative = common.relative(driver, row.dataset)
        driver.check()  # a pool that is away is to be no end that is finished when it comes back
        intents.note_end(row.id, version)
        try:
            driver.destroy(relative)
        except (PoolBusy, TemplateInUse):
            intents.forget(row.id)  # nothing has changed
            raise
        event = SandboxDestroyed(sandbox=row.id, template=row.template_name, dataset=row.dataset)
        (recorded,) = store.append([event], meta=context, expected={event.stream(): version})
        intents.forget(row.id)
    return recorded
