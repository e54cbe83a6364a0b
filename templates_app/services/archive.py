"""The texts that events name by digest alone: manifests of trees, documents of images.

Kept as long as the log names them. A manifest that is not kept any more is made again from the
snapshot, and is believed only where its sha256 is the tree digest.
"""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

from templates_app import store
from templates_app.errors import CoppiceError, ManifestMissing
from templates_app.events import EvidenceAttached
from templates_app.models import Binding, Generation
from templates_app.services import common
from templates_app.trust import tree
from templates_app.trust.manifests import Archive, Damaged, Texts

logger = logging.getLogger("coppice.archive")

#: Texts that nothing names are kept this long, in seconds: an import puts them before its event.
STAY = 24 * 3600.0
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


def archive() -> Archive:
    return Archive.of(settings.COPPICE_STATE_DIR)


def manifest(generation: Generation) -> bytes:
    """The tree manifest of a generation, also of one that was destroyed. ManifestMissing."""
    texts = archive().manifests
    kept = kept_text(texts, generation.tree_digest)
    return _made_again(generation, texts) if kept is None else kept


def kept_text(texts: Texts, digest: str) -> bytes | None:
    """What is kept under the digest; None also where that is damaged."""
    try:
        return texts.get(digest)
    except Damaged:
        logger.warning("%s in %s is damaged, and as if it were not there", digest, texts.place)
        return None


def scanned(path: Path) -> tuple[tree.Tree, bytes]:
    """What a directory holds, and its manifest, which is kept from now on."""
    into = io.BytesIO()
    found = tree.scan(path, limit_entries=settings.COPPICE_LIMIT_ENTRIES, into=into)
    archive().manifests.put(into.getvalue())
    return found, into.getvalue()


def _made_again(generation: Generation, texts: Texts) -> bytes:
    if generation.destroyed_position is not None:
        raise _missing(generation, "and its dataset is gone.")
    driver = common.driver()
    into = io.BytesIO()
    try:
        with driver.reading(common.relative(driver, generation.dataset)) as path:
            found = tree.scan(path, limit_entries=settings.COPPICE_LIMIT_ENTRIES, into=into)
    except CoppiceError as error:
        raise _missing(generation, f"and cannot be made again: {error.detail}") from error
    if found.digest != generation.tree_digest:
        raise _missing(
            generation,
            f"and the files on the pool lead to another one, {found.digest}.",
            hint=f"Look at what differs with: coppice tpl verify {generation.template_name}",
        )
    texts.put(into.getvalue())
    return into.getvalue()


def _missing(generation: Generation, why: str, hint: str | None = None) -> ManifestMissing:
    what = f"{generation.template_name} generation {generation.number}"
    return ManifestMissing(f"The tree manifest of {what} is not kept here, {why}", hint=hint)


def forget_unnamed(states: Iterable[str] = ()) -> None:
    """Remove what no event names, and none of the tree digests ``states``."""
    kept = archive()
    # Of all statements ever bound, not of the generations' rows: a hand-made one that was made
    # anew has another digest in its row, and the log has both.
    trees = set(Binding.objects.values_list("digest", flat=True)) | set(states)
    forget(kept.manifests, trees)
    forget(kept.documents, _documents(kept.documents))


def forget(texts: Texts, named: set[str]) -> None:
    """Remove what is not ``named``, if nobody put or used it lately; and what writers left."""
    before = time.time() - STAY
    texts.sweep()
    for digest in texts.digests() - named:
        if texts.used(digest) < before:
            texts.forget(digest)


def _documents(texts: Texts) -> set[str]:
    """Digests of images in the log; and what their indexes name, which may be indexes again."""
    columns = ("index_digest", "manifest_digest", "config_digest")
    named = {one for row in Generation.objects.values_list(*columns) for one in row if one}
    indexes = Generation.objects.exclude(index_digest="").values_list("index_digest", flat=True)
    todo = set(indexes)
    for one in store.read(types=(EvidenceAttached.type,)):
        if isinstance(one.event, EvidenceAttached):
            named |= {digest for item in one.event.items for digest in item.kept}
    while todo:
        text = kept_text(texts, todo.pop()) or b""
        found = {one.decode("ascii") for one in _DIGEST.findall(text)} - named
        named |= found
        todo |= {one for one in found if texts.has(one)}
    return named
