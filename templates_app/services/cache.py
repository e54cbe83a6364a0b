"""The blob cache's size, and what of it goes."""

from __future__ import annotations

from dataclasses import dataclass

from templates_app.services import common
from templates_app.sources.native.cache import BlobCache, Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went, or with a dry run would have gone; and the bytes that stay."""

    gone: tuple[Kept, ...]
    kept_bytes: int
    limit_bytes: int


def prune(*, everything: bool, dry_run: bool) -> Pruned:
    """Evict what is above the limit, or everything; what a running import uses stays."""
    cache = BlobCache.of(common.source_context())
    before = sum(one.size_bytes for one in cache.listing())
    gone = cache.evict(down_to=0 if everything else cache.limit_bytes, dry_run=dry_run)
    return Pruned(
        gone=tuple(gone),
        kept_bytes=before - sum(one.size_bytes for one in gone),
        limit_bytes=cache.limit_bytes,
    )
