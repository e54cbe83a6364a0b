"""An import by way of layer states: begin where the pool has been before, and keep where it gets.

A state is known by its **key**: the ChainID of the layers in it, which is a digest over all that
went into the tree; or, for the whole tree that a generation is a clone of, a digest over that and
whatever is planted and judged besides. A snapshot is of use only with its note, and for further
layers only with its manifest, both kept by their sha256 in the state directory. So what is half
made, or damaged, or from a state directory that is gone, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from templates_app import codec
from templates_app.datasets.layers import Filling, LayerStore, State
from templates_app.errors import PoolBusy
from templates_app.events import Deviation, Verdict
from templates_app.sources.base import LayerState, Receipt, States
from templates_app.trust.manifests import Damaged, Texts

logger = logging.getLogger("coppice.layers")

#: In each note. Another number whenever the same layers and parameters come to give another tree,
#: manifest or verdict: states that were made before are then unknown.
FORM = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where states are: snapshots on the pool, and the texts about them."""

    store: LayerStore
    manifests: Texts
    notes: Texts
    engine: str  # what fills them
    patience: float  # seconds to wait for somebody who makes the same state
    make_room: Callable[[int], None]  # for layers that have so many bytes as transferred


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of a state. ``deviations`` of a whole tree include what was planted."""

    key: str
    form: int
    number: int  # of layers; one more for a whole tree
    tree_digest: str
    entries: int
    content_bytes: int  # as LayerState.content_bytes; 0 of a whole tree, on which nothing is built
    engine: str
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    verdict: Verdict | None = None  # of a whole tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A tree to which nothing is done any more."""

    tree_digest: str
    manifest: bytes
    entries: int
    planted: tuple[Deviation, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A state that a generation can be cloned from."""

    state: State
    note: Note
    verdict: Verdict
    receipt: Receipt


def whole_key(chain_id: str, *parameters: str) -> str:
    """The key of a tree with all its layers, planted and judged as the parameters say."""
    text = json.dumps([chain_id, *parameters])
    return f"whole-{hashlib.sha256(text.encode('ascii')).hexdigest()}"


def whole(
    kept: Kept,
    chain_ids: Sequence[str],
    key: str,
    *,
    states: list[State],
    sizes: Sequence[int],
    image: str,
    create: Callable[[], None],
    fetch: Callable[[Path, States], Receipt],
    finish: Callable[[Path, Receipt], Finished],
) -> Whole:
    """The state ``key`` over the layers ``chain_ids``, made as far as it is not there yet.

    ``states`` are those of the store as just listed, ``sizes`` the layers' bytes as transferred,
    ``image`` is a free name for an image dataset; ``create`` is called before it is made. ``fetch``
    applies the layers that are missing, ``finish`` does to the tree what comes after. Where
    somebody else makes one of these states at this moment, it is waited for; after ``patience``
    seconds, it is made here too.
    TemplateMissing where what was begun with is removed meanwhile: then call again.
    """
    keys = [*(one.removeprefix("sha256:") for one in chain_ids), key]
    with _Claims(kept) as claims:
        begin = _begin(kept, keys, claims, states)
        if begin is not None:
            kept.notes.touch(begin.state.note)
        if begin is not None and (verdict := begin.note.verdict) is not None:
            note = begin.note
            return Whole(state=begin.state, note=note, verdict=verdict, receipt=_receipt_of(note))
        create()
        kept.make_room(sum(sizes[begin.note.number if begin else 0 :]))
        with kept.store.filling(image, begin.state if begin else None) as place:
            work = _Work(kept, keys, claims, place)
            return work.run(begin, fetch, finish)


@dataclass(frozen=True, slots=True)
class _Known:
    state: State
    note: Note
    manifest: bytes = b""


@dataclass(slots=True)
class _Work:
    kept: Kept
    keys: list[str]
    claims: _Claims
    place: Filling

    def run(
        self,
        begin: _Known | None,
        fetch: Callable[[Path, States], Receipt],
        finish: Callable[[Path, Receipt], Finished],
    ) -> Whole:
        done = None if begin is None else _layer_state(begin)
        if begin is not None and begin.note.number == len(self.keys) - 1:
            receipt = _receipt_of(begin.note, begin.manifest)
        else:
            receipt = fetch(self.place.path, States(done=done, keep=self._keep_layer))
        made = finish(self.place.path, receipt)
        note = Note(
            key=self.keys[-1],
            form=FORM,
            number=len(self.keys),
            tree_digest=made.tree_digest,
            entries=made.entries,
            content_bytes=0,
            engine=receipt.engine,
            left_out=receipt.left_out,
            findings=receipt.findings,
            deviations=(*receipt.deviations, *made.planted),
            verdict=made.verdict,
        )
        state = self._keep(note, made.manifest)
        return Whole(state=state, note=note, verdict=made.verdict, receipt=receipt)

    def _keep_layer(self, layer: LayerState) -> None:
        note = Note(
            key=self.keys[layer.number - 1],
            form=FORM,
            number=layer.number,
            tree_digest=f"sha256:{hashlib.sha256(layer.manifest).hexdigest()}",
            entries=layer.entries,
            content_bytes=layer.content_bytes,
            engine=self.kept.engine,
            left_out=layer.left_out,
            findings=layer.findings,
            deviations=layer.deviations,
        )
        self._keep(note, layer.manifest)

    def _keep(self, note: Note, manifest: bytes) -> State:
        # The texts first: a state that can be seen has both.
        self.kept.manifests.put(manifest)
        text = json.dumps(codec.encode(note), sort_keys=True).encode("ascii")
        digest = self.kept.notes.put(text)
        state = self.place.keep(note.key, tree_digest=note.tree_digest, note=digest)
        self.claims.release(note.key)
        return state


class _Claims:
    """The keys that this import makes; nobody else who asks makes them meanwhile."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, key: str, *, patience: float) -> bool:
        if key in self._held:
            return False
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(self._kept.store.alone(key, patience=patience))
        except PoolBusy:
            return False
        self._held[key] = stack
        return True

    def release(self, key: str) -> None:
        if stack := self._held.pop(key, None):
            stack.close()

    def __enter__(self) -> _Claims:
        return self

    def __exit__(self, *error: object) -> None:
        for key in list(self._held):
            self.release(key)


def _begin(kept: Kept, keys: list[str], claims: _Claims, states: list[State]) -> _Known | None:
    """The deepest state that is known when nobody else makes the one after it.

    Claims are taken from the base up, and a key stands for all below it, so no two imports can wait
    for each other.
    """
    while True:
        known = _deepest(kept, keys, states)
        number = known.note.number if known else 0
        if number == len(keys) or not claims.take(keys[number], patience=kept.patience):
            break
        states = kept.store.states()  # somebody may have made it while it was waited for
    # Those above too: who waits for the first must not overtake us at the next.
    for key in keys[number + 1 :]:
        claims.take(key, patience=0)
    return known


def _deepest(kept: Kept, keys: list[str], states: list[State]) -> _Known | None:
    by_key: dict[str, list[State]] = {}
    for state in states:
        by_key.setdefault(state.key, []).append(state)
    for number, key in reversed(list(enumerate(keys, 1))):
        for state in by_key.get(key, ()):
            note = _note(kept, state)
            if note is None or (note.key, note.form, note.number) != (key, FORM, number):
                continue
            if note.verdict is not None:
                return _Known(state, note)
            manifest = _text(kept.manifests, state.tree_digest)
            if manifest is not None:
                return _Known(state, note, manifest)
    return None


def _note(kept: Kept, state: State) -> Note | None:
    text = _text(kept.notes, state.note)
    if text is None:
        return None
    try:
        note: Note = codec.decode(Note, json.loads(text))
    except codec.PayloadInvalid:  # of another version of ours
        return None
    return note if note.tree_digest == state.tree_digest else None


def _text(texts: Texts, digest: str) -> bytes | None:
    try:
        return texts.get(digest)
    except Damaged:
        logger.warning("%s in %s is damaged, and as if it were not there", digest, texts.place)
        return None


def _layer_state(known: _Known) -> LayerState:
    note = known.note
    return LayerState(
        number=note.number,
        manifest=known.manifest,
        entries=note.entries,
        content_bytes=note.content_bytes,
        left_out=note.left_out,
        findings=note.findings,
        deviations=note.deviations,
    )


def _receipt_of(note: Note, manifest: bytes | None = None) -> Receipt:
    """Nothing was brought here for it."""
    return Receipt(
        engine=note.engine,
        left_out=note.left_out,
        findings=note.findings,
        deviations=note.deviations,
        entries=note.entries,
        fetched_bytes=0,
        cached_bytes=0,
        written_bytes=0,
        manifest=manifest,
    )
