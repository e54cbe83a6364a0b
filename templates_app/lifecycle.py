"""What may follow what: a template's state folded from its events, and the rule of each use case.

Pure: events in, a state or an error out. The services load the events that mention a template,
fold them here, ask the rule, and append what follows with the version that they saw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from templates_app.errors import (
    GenerationCurrent,
    GenerationNotFound,
    TemplateExists,
    TemplateMissing,
    TemplateNotFound,
)
from templates_app.events import Destroyed, DomainEvent, Imported, Reloaded, Retired, RolledBack

#: Types of the events that :func:`evolve` looks at.
TYPES = (Imported.type, Destroyed.type, RolledBack.type, Retired.type, Reloaded.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationState:
    number: int
    dataset: str
    origin: str
    snapshot_guid: str
    tree_digest: str
    statement: str
    statement_digest: str
    manifest_digest: str | None
    adopted: bool
    kept: bool = False  # for its clones alone, of a template that was destroyed


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateState:
    """A template as its events tell it. ``current`` is None before the first and after the last."""

    name: str
    current: GenerationState | None = None
    generations: dict[int, GenerationState] = field(default_factory=dict)  # that exist
    highest: int = 0  # of all numbers ever given out: none is used twice
    missing: bool = False

    @property
    def exists(self) -> bool:
        return self.current is not None


def fold(name: str, events: Iterable[DomainEvent]) -> TemplateState:
    state = TemplateState(name=name)
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: TemplateState, event: DomainEvent) -> TemplateState:
    match event:
        case Imported(template=state.name):
            made = GenerationState(
                number=event.generation,
                dataset=event.dataset,
                origin=event.origin,
                snapshot_guid=event.snapshot_guid,
                tree_digest=event.tree_digest,
                statement=event.statement,
                statement_digest=event.statement_digest,
                manifest_digest=event.digests.manifest,
                adopted=False,
            )
            if event.moved_aside and (hand_made := state.generations.get(0)):
                moved = replace(
                    hand_made, dataset=event.moved_aside, origin=f"{event.moved_aside}@base"
                )
                state = replace(state, generations={**state.generations, 0: moved})
            return _with_current(state, made)
        case Destroyed(template=state.name):
            kept = {
                number: replace(state.generations[number], kept=True)
                for number in event.kept
                if number in state.generations
            }
            return replace(state, current=None, generations=kept, missing=False)
        case RolledBack(template=state.name):
            return _with_current(state, state.generations[event.generation])
        case Retired(template=state.name):
            stay = {n: g for n, g in state.generations.items() if n != event.generation}
            return replace(state, generations=stay)
        case Reloaded():
            return _reloaded(state, event)
        case _:
            return state


def _reloaded(state: TemplateState, event: Reloaded) -> TemplateState:
    for adopted in (*event.added, *event.changed):
        if adopted.template == state.name:
            made = GenerationState(
                number=0,
                dataset=adopted.dataset,
                origin=adopted.snapshot,
                snapshot_guid=adopted.snapshot_guid,
                tree_digest=adopted.tree_digest,
                statement=adopted.statement,
                statement_digest=adopted.statement_digest,
                manifest_digest=None,
                adopted=True,
            )
            state = _with_current(state, made)
    if state.name in event.missing:
        state = replace(state, missing=True)
    if state.name in event.returned:
        state = replace(state, missing=False)
    return state


def _with_current(state: TemplateState, made: GenerationState) -> TemplateState:
    return replace(
        state,
        current=made,
        generations={**state.generations, made.number: made},
        highest=max(state.highest, made.number),
        missing=False,
    )


# --- the rules ---------------------------------------------------------------------------------


def next_generation(state: TemplateState, *, force: bool) -> int:
    """The number that an import of this name gets. TemplateExists unless forced."""
    if state.current is not None and not force:
        digest = state.current.manifest_digest
        what = f"from image {digest}" if digest else "made by hand"
        raise TemplateExists(
            f"{state.name} exists, generation {state.current.number}, {what}.",
            hint="To import a new generation beside it, repeat with --force (force: true).",
            extra={
                "digest": digest,
                "treeDigest": state.current.tree_digest,
                "generation": state.current.number,
            },
        )
    return state.highest + 1


def current(state: TemplateState) -> GenerationState:
    """The generation that the name points at. TemplateNotFound where there is none."""
    if state.current is None:
        raise TemplateNotFound(f"There is no template {state.name}.")
    return state.current


def launchable(state: TemplateState) -> GenerationState:
    """Like :func:`current`, and its dataset is not known to be missing. TemplateMissing else."""
    generation = current(state)
    if state.missing:
        raise TemplateMissing(f"The dataset of {state.name} is not on the pool.")
    return generation


def rollback_target(state: TemplateState, to: int | None) -> GenerationState:
    """The generation that a rollback makes current: ``to``, or the one imported before this one.

    TemplateNotFound, GenerationNotFound, GenerationCurrent. A hand-made one is not offered: it was
    moved from the place where whoever made it expects it, and how it was made is not known.
    """
    now = current(state)
    there = sorted(g.number for g in own(state) if not g.adopted)
    if to == now.number:
        raise GenerationCurrent(f"Generation {to} of {state.name} is current already.")
    wanted = max((n for n in there if n < now.number), default=None) if to is None else to
    if wanted not in there:
        what = f"no generation {to}" if to is not None else f"none before generation {now.number}"
        shown = ", ".join(map(str, there)) or "none"
        raise GenerationNotFound(
            f"Of {state.name} there is {what} to go back to; imported and there: {shown}."
        )
    return state.generations[wanted]


def own(state: TemplateState) -> list[GenerationState]:
    """The generations of the template itself, the oldest first: without those that are kept."""
    return [g for _, g in sorted(state.generations.items()) if not g.kept]


def kept(state: TemplateState) -> list[GenerationState]:
    """Those that stay for their clones alone, the oldest first."""
    return [g for _, g in sorted(state.generations.items()) if g.kept]


def sweepable(state: TemplateState, *, retain: int) -> list[GenerationState]:
    """Generations that may go where nothing is cloned from them, the oldest first.

    Those that are kept for their clones alone; and of the template's own all but the current one
    and the ``retain`` newest besides it. None of these while the current one's dataset is missing:
    an older one may be all that is left. And no hand-made one: it cannot be imported again, and
    goes with its name alone.
    """
    if state.current is None or state.missing:
        return kept(state)
    others = [one for one in own(state) if one != state.current]
    beyond = others[: len(others) - retain] if retain < len(others) else []
    return [*kept(state), *(one for one in beyond if not one.adopted)]
