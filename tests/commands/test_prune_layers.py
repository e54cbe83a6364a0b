"""`manage.py prune_layers`: what no template needs goes, the least recently used first."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from templates_app import store
from templates_app.datasets.base import generation_name
from templates_app.events import Digests
from templates_app.services import archive, common, layers
from tests import house
from tests.pools import sh

GENERATION = generation_name("web", 1, "0000000a")
MB = 1024 * 1024


class Place:
    """Image datasets as imports leave them; ``used`` is when, in seconds of the epoch."""

    def __init__(self):
        self.pool = common.driver()
        self.pool.check()
        self.kept = layers.kept(self.pool)
        self.store = self.pool.layers

    def make(self, image, used, *, over=None, size=MB):
        note = self.kept.notes.put(f"about {image}".encode())
        tree = self.kept.manifests.put(f"manifest of {image}".encode())
        with self.store.filling(image, over) as filling:
            (filling.path / image).write_bytes(os.urandom(size))
            state = filling.keep(f"k-{image}", tree_digest=tree, note=note)
        self.age(self.kept.notes, note, used)
        self.age(self.kept.manifests, tree, used)
        return state

    def age(self, texts, digest, used):
        os.utime(texts.place / f"{digest.removeprefix('sha256:')}.zst", (used, used))

    @property
    def images(self):
        return [image.name for image in self.store.images()]


@pytest.fixture
def place(shop, settings, zfs_pool, pool_state):
    settings.COPPICE_POOL = zfs_pool.pool
    settings.COPPICE_STATE_DIR = pool_state
    settings.COPPICE_LIMIT_LAYERS_BYTES = 2 * MB + MB // 2
    return Place()


def test_the_least_recently_used_go_down_to_the_limit(shop, place):
    for image, used in (("image-a", 300), ("image-b", 100), ("image-c", 200)):
        place.make(image, used)
    done = shop.run("prune_layers", "--dry-run")
    assert "Would remove the states of 1 images" in done.err
    assert place.images == ["image-a", "image-b", "image-c"]
    done = shop.run("prune_layers")
    assert done.status == 0
    name, size, used = done.out.split()
    assert (name, used) == ("image-b", "1970-01-01T00:01:40+00:00")
    assert MB < int(size) < 1.2 * MB
    assert place.images == ["image-a", "image-c"]
    assert shop.run("prune_layers").out == ""


def test_what_a_template_needs_is_neither_removed_nor_counted(shop, place):
    needed = place.make("image-a", 100, size=4 * MB)
    place.store.generation(needed, GENERATION)
    place.make("image-b", 200)
    assert shop.run("prune_layers").out == ""
    done = json.loads(shop.run("prune_layers", "--all", "--json").out)
    assert [(row["image"], row["states"]) for row in done["removed"]] == [("image-b", 1)]
    assert (done["keptBytes"], done["limitBytes"], done["dryRun"]) == (0, 2 * MB + MB // 2, False)
    assert place.images == ["image-a"]
    # With its template gone, nobody needs it.
    place.pool.destroy(GENERATION)
    assert shop.run("prune_layers", "--all").out.split()[0] == "image-a"


def test_a_base_goes_after_what_was_made_over_it(shop, place):
    base = place.make("image-a", 100)
    place.make("image-b", 900, over=base)
    out = shop.run("prune_layers", "--all").out
    assert [line.split()[0] for line in out.splitlines()] == ["image-b", "image-a"]
    assert place.images == []


def test_a_base_that_something_needed_is_made_over_stays(shop, place):
    base = place.make("image-a", 100)
    top = place.make("image-b", 100, over=base)
    place.store.generation(top, GENERATION)
    assert shop.run("prune_layers", "--all").out == ""
    assert place.images == ["image-a", "image-b"]


def test_what_is_being_filled_stays(shop, place):
    with place.store.filling("image-a", None) as filling:
        filling.keep("a", tree_digest="sha256:" + "1" * 64, note="sha256:" + "2" * 64)
        assert shop.run("prune_layers", "--all").out == ""
    assert place.images == ["image-a"]


def test_texts_that_nothing_names_go_after_a_day(shop, place):
    state = place.make("image-a", 100)
    old = place.kept.notes.put(b"of no state")
    new = place.kept.notes.put(b"of a state that is just being made")
    place.age(place.kept.notes, old, time.time() - 2 * 24 * 3600)
    shop.run("prune_layers")
    assert place.kept.notes.digests() == {state.note, new}
    assert place.kept.manifests.digests() == {state.tree_digest}
    shop.run("prune_layers", "--all")
    assert place.kept.notes.digests() == {new}
    assert place.kept.manifests.digests() == set()


def test_the_manifest_of_a_generation_stays_with_its_events(shop, place):
    signed = place.kept.manifests.put(b"what somebody has signed")
    other = place.kept.manifests.put(b"of nothing")
    for digest in (signed, other):
        place.age(place.kept.manifests, digest, 100)
    store.append([house.imported("web", tree_digest=signed)], meta=house.meta())
    shop.run("prune_layers", "--all")
    assert place.kept.manifests.digests() == {signed}


def test_what_hand_made_files_were_before_stays_as_long(shop, settings):
    """The row of generation 0 has only what it is now."""
    shop.hand_make("web")
    shop.run("reload_templates")
    (before,) = archive.archive().manifests.digests()
    shutil.rmtree(shop.pool / "web-template@base")
    shop.hand_make("web")
    (shop.pool / "web-template@base" / "more").write_text("more")
    shop.run("reload_templates")
    kept = archive.archive().manifests
    assert len(kept.digests()) == 2
    for digest in kept.digests():
        os.utime(kept.place / f"{digest.removeprefix('sha256:')}.zst", (1, 1))
    shop.run("prune_layers")
    assert before in kept.digests() and len(kept.digests()) == 2


def test_documents_of_images_stay_and_what_their_indexes_name(shop):
    kept = archive.archive().documents
    inner = kept.put(b"an index within an index")
    outer = kept.put(f'{{"manifests": [{{"digest": "{inner}"}}]}}'.encode())
    config, other = kept.put(b"a config"), kept.put(b"of a failed import")
    for digest in (inner, outer, config, other):
        os.utime(kept.place / f"{digest.removeprefix('sha256:')}.zst", (1, 1))
    digests = Digests(index=outer, manifest=house.digest("manifest"), config=config)
    store.append([house.imported("web", digests=digests)], meta=house.meta())
    shop.run("prune_layers")
    assert kept.digests() == {inner, outer, config}


def test_room_is_made_before_an_import_that_would_not_fit(place):
    free = place.pool.space().available_bytes
    place.make("image-a", 100, size=8 * MB)
    place.make("image-b", 200, size=8 * MB)
    place.kept.make_room((free - 32 * MB) // 3)
    assert place.images == ["image-a", "image-b"]
    place.kept.make_room((free - 10 * MB) // 3)
    assert place.images == ["image-b"]
    place.kept.make_room(free)
    assert place.images == []


def test_recovery_puts_back_what_a_dead_import_was_filling(shop, place):
    child = os.fork()
    if child == 0:
        with place.store.filling("image-a", None) as filling:
            (filling.path / "half").write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    done = shop.run("recover", "--dry-run")
    assert place.images == ["image-a"]
    done = shop.run("recover")
    full = place.pool.full_name("coppice-layers/image-a")
    assert f"removed what a dead import was filling in {full}" in done.out
    assert place.images == []


def test_a_directory_pool_has_none(shop):
    done = shop.run("prune_layers", "--all", "--json")
    assert json.loads(done.out)["removed"] == []


def test_an_operator_can_see_the_states(place):
    state = place.make("image-a", 100)
    shown = sh("zfs", "list", "-H", "-t", "snapshot", "-o", "name,coppice:tree-digest", state.name)
    assert shown.split() == [state.name, state.tree_digest]
