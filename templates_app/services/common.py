"""Settings -> drivers, sources, rules; who is asking; a template's state from its events."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.conf import settings

from templates_app import gate, lifecycle, store
from templates_app.datasets import from_pool
from templates_app.datasets.base import OURS, DatasetDriver
from templates_app.errors import EventConflict, PoolUnavailable
from templates_app.events import Meta
from templates_app.pipeline import Rules
from templates_app.sources.base import SourceContext
from templates_app.sources.native.limits import Limits

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: How often an append is decided anew when somebody else was faster.
ATTEMPTS = 10


def decided_anew(decide: Callable[_P, _T]) -> Callable[_P, _T]:
    """Look, decide and append again where somebody else's event came first, ATTEMPTS times in all.

    What is decorated begins with the version that it appends after, so that whatever happens while
    it looks is an EventConflict, and does nothing after its append that could be one.
    """

    @functools.wraps(decide)
    def until_nobody_was_faster(*args: _P.args, **more: _P.kwargs) -> _T:
        for _ in range(ATTEMPTS - 1):
            try:
                return decide(*args, **more)
            except EventConflict:
                continue
        return decide(*args, **more)

    return until_nobody_was_faster


def context(*, actor: str, source: str, request_id: str) -> Meta:
    return Meta(actor=actor[:150], source=source, request_id=request_id, node=settings.COPPICE_NODE)


def driver() -> DatasetDriver:
    """The pool that COPPICE_POOL names. Never another one instead."""
    return from_pool(
        settings.COPPICE_POOL,
        step_seconds=settings.COPPICE_LIMIT_STEP_SECONDS,
        state_dir=settings.COPPICE_STATE_DIR,
        quota_bytes=settings.COPPICE_QUOTA_BYTES,
    )


def source_context() -> SourceContext:
    return SourceContext(
        platform=settings.COPPICE_PLATFORM,
        allowed=settings.COPPICE_REGISTRIES_ALLOWED,
        insecure=settings.COPPICE_REGISTRIES_INSECURE,
        auth_file=settings.COPPICE_REGISTRY_AUTH_FILE,
        step_seconds=settings.COPPICE_LIMIT_STEP_SECONDS,
        state_dir=settings.COPPICE_STATE_DIR,
        limit_image_bytes=settings.COPPICE_LIMIT_IMAGE_BYTES,
        engine=settings.COPPICE_ENGINE,
        limits=Limits(
            entries=settings.COPPICE_LIMIT_ENTRIES,
            tree_bytes=settings.COPPICE_LIMIT_TREE_BYTES,
            file_bytes=settings.COPPICE_LIMIT_FILE_BYTES,
            ratio=settings.COPPICE_LIMIT_RATIO,
            seconds=settings.COPPICE_LIMIT_STEP_SECONDS,
            memory_bytes=settings.COPPICE_LIMIT_MEMORY_BYTES,
        ),
        limit_cache_bytes=settings.COPPICE_LIMIT_CACHE_BYTES,
        import_roots=settings.COPPICE_IMPORT_ROOTS,
        mirrors=settings.COPPICE_REGISTRY_MIRRORS,
        ca_file=settings.COPPICE_REGISTRY_CA_FILE,
    )


def gate_policy() -> gate.Policy:
    return gate.Policy(
        mode=settings.COPPICE_REQUIRE_SIGNED_TEMPLATES,
        signatures=settings.COPPICE_REQUIRE_SIGNATURES,
        two_persons=settings.COPPICE_REQUIRE_TWO_PERSONS,
        exempt=settings.COPPICE_GATE_EXEMPT,
    )


def rules() -> Rules:
    return Rules(
        nameserver=settings.COPPICE_DNS_NAMESERVER,
        limit_entries=settings.COPPICE_LIMIT_ENTRIES,
        refuse_foreign=settings.COPPICE_REFUSE_FOREIGN,
        limit_manifest_bytes=source_context().limits.manifest_bytes,
    )


def state_of(name: str) -> lifecycle.TemplateState:
    """The template as its events tell it."""
    # Those that a fold looks at: a template may have been launched a hundred thousand times.
    told = store.about("template", name, types=lifecycle.TYPES)
    return lifecycle.fold(name, (one.event for one in told))


def relative(pool: DatasetDriver, full: str) -> str:
    """A full dataset or snapshot name as the driver takes it: below the root, without @base.

    PoolUnavailable where it is on another pool than the one that is set now.
    """
    root = pool.full_name(OURS).removesuffix(OURS)
    if not full.startswith(root):
        raise PoolUnavailable(
            f"{full} was recorded on another pool than {pool.pool}.",
            hint="Set COPPICE_POOL to the pool that this database belongs to.",
        )
    return full.removeprefix(root).partition("@")[0]
