"""An import on the real programs and a real pool: all of it but the server and its log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from templates_app import pipeline
from templates_app.datasets.base import DatasetDriver
from templates_app.names import Platform, TemplateName
from templates_app.sources.base import SourceContext
from templates_app.sources.oci import OciSource
from templates_app.trust.manifests import Archive
from tests.registries import FaultProxy, Registry


def a_context(
    registry: Registry | FaultProxy,
    state: Path,
    *,
    platform: str = "linux/amd64",
    engine: str = "native",
) -> SourceContext:
    state.mkdir(exist_ok=True)
    return SourceContext(
        platform=Platform.parse(platform),
        allowed=(),
        insecure=(registry.host,),
        auth_file=None,
        step_seconds=300,
        state_dir=state,
        limit_image_bytes=2**40,
        engine=engine,
    )


def imported(
    pool: DatasetDriver,
    rest: str,
    registry: Registry | FaultProxy,
    state: Path,
    *,
    name: str = "web",
    generation: int = 1,
    platform: str = "linux/amd64",
    engine: str = "native",
    **rules: Any,
) -> pipeline.Made:
    """Import ``registry/rest`` as a generation of ``name``."""
    pool.check()
    context = a_context(registry, state, platform=platform, engine=engine)
    job = pipeline.Job(
        name=TemplateName(name),
        source=OciSource.parse(f"{registry.host}/{rest}", context),
        import_id=f"{generation:08x}",
        generation=generation,
        driver=pool,
        archive=Archive.of(state),
        rules=pipeline.Rules(
            **{
                "nameserver": "10.78.0.1",
                "limit_entries": 2_000_000,
                "refuse_foreign": False,
                **rules,
            }
        ),
        report=lambda progress: None,
    )
    return pipeline.run(job, lambda made: made, lambda: None)


@contextlib.contextmanager
def cloned(pool: DatasetDriver, made: pipeline.Made) -> Iterator[Path]:
    """What a sandbox of it gets.

    Not the read-only view: the first file without attributes that zfs-fuse is asked about there
    has the kernel believe that the whole file system keeps none.
    """
    name = f"looked-at-{made.tree_digest[-12:]}"
    clone = pool.clone(relative(pool, made), name)
    yield clone.path
    pool.destroy(name)


def relative(pool: DatasetDriver, made: pipeline.Made) -> str:
    """Its dataset as the driver takes it."""
    return made.dataset.removeprefix(pool.full_name("x").removesuffix("x"))
