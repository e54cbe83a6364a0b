"""Both engines make the same tree of the images that ``make bench`` measures, on both pools.

Each on one of them: that what lies on both is the same is for tests/e2e/test_fidelity.py to say.
``make soak`` tries each on each; 50,000 files take buildah and rsync a minute on zfs-fuse.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import _images
from templates_app.datasets.base import DatasetDriver
from tests.imports import imported
from tests.registries import Registry

TURNS = [("debian", "zfs"), ("small", "dir")]
if "SOAK_SECONDS" in os.environ:
    TURNS += [("debian", "dir"), ("small", "zfs")]


@pytest.mark.slow
@pytest.mark.parametrize(("image", "kind"), TURNS)
def test_both_engines_give_an_image_the_same_tree_digest(
    image: str,
    kind: str,
    registry: Registry,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    pool: DatasetDriver = request.getfixturevalue(f"{kind}_pool")
    document = _images.debian() if image == "debian" else _images.small(_images.small_base())
    registry.push(f"bench/{image}", "1", document)
    native, buildah = (
        imported(pool, f"bench/{image}:1", registry, tmp_path / "state", name=engine, engine=engine)
        for engine in ("native", "buildah")
    )
    assert native.tree_digest == buildah.tree_digest
    assert native.entries == buildah.entries > 11_000
    assert (native.receipt.engine, buildah.receipt.engine) == ("native", "buildah")
