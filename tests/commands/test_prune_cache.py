"""`manage.py prune_cache`: what was used least recently goes; what an import uses stays."""

from __future__ import annotations

import json
import os

import pytest

from templates_app.services import common
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.native.incoming import keep


@pytest.fixture
def cache(shop, settings) -> BlobCache:
    """Three documents of 5 bytes, "first" used longest ago; nine bytes are allowed."""
    settings.COPPICE_LIMIT_CACHE_BYTES = 2**30
    filled = BlobCache.of(common.source_context())
    for number, text in enumerate((b"first", b"later", b"final")):
        os.utime(filled.path(keep(filled, text)), (number, number))
    settings.COPPICE_LIMIT_CACHE_BYTES = 9
    return filled


def test_what_is_above_the_limit_goes(shop, cache):
    oldest, older, newest = cache.listing()
    done = shop.run("prune_cache")
    assert done.status == 0
    assert done.out.splitlines() == [
        f"{oldest.digest}\t5\t1970-01-01T00:00:00+00:00",
        f"{older.digest}\t5\t1970-01-01T00:00:01+00:00",
    ]
    assert "Removed 2 blobs (10B); 5B stay of at most 9B." in done.err
    assert cache.listing() == [newest]


def test_a_dry_run_only_says_it(shop, cache):
    said = json.loads(shop.run("prune_cache", "--all", "--dry-run", "--json").out)
    assert [row["sizeBytes"] for row in said["removed"]] == [5, 5, 5]
    assert (said["keptBytes"], said["limitBytes"], said["dryRun"]) == (0, 9, True)
    assert len(cache.listing()) == 3


def test_what_is_in_use_stays(shop, cache):
    used = cache.listing()[0].digest
    with cache.open(used):
        assert shop.run("prune_cache", "--all").status == 0
        assert [one.digest for one in cache.listing()] == [used]


def test_recovery_removes_what_nobody_went_on_with_for_a_week(shop, cache):
    for name, age in (("a" * 64, 8), ("b" * 64, 6)):
        path = cache.home / "sha256" / f"{name}.part"
        path.write_bytes(b"half")
        then = path.stat().st_mtime - age * 24 * 3600
        os.utime(path, (then, then))
    done = shop.run("recover")
    assert f"removed the unfinished download of sha256:{'a' * 64}" in done.out
    assert [one.digest.hex[0] for one in cache.listing() if one.partial] == ["b"]
