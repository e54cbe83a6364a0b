"""What the port to layer states promises, on a real ZFS. `dir:` has none, and says so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from templates_app.datasets.base import generation_name
from templates_app.datasets.layers import LAYERS
from templates_app.errors import Conflict, PoolBusy, TemplateInUse, TemplateMissing
from tests.pools import sh
from tests.trees import describe, fill

GENERATION = generation_name("web", 1, "0000000a")
TREE, NOTE = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def layers(zfs_pool):
    return zfs_pool.layers


def full(pool, image=""):
    return f"{pool.root}/{LAYERS}/{image}".rstrip("/")


def prop(name, key):
    return sh("zfs", "get", "-H", "-o", "value", key, name).strip()


def keep(layers, image="image-1", key="a1", over=None, **files):
    with layers.filling(image, over) as place:
        for name, text in files.items():
            (place.path / name).write_text(text)
        return place.keep(key, tree_digest=TREE, note=NOTE)


def read(pool, state, relative=GENERATION):
    """The files of a state, as a sandbox sees them."""
    pool.layers.generation(state, relative)
    path = pool.clone(relative, "sandbox-1").path
    found = {one.name: one.read_text() for one in path.iterdir()}
    pool.destroy("sandbox-1")
    pool.destroy(relative)
    return found


def test_a_directory_pool_has_none(dir_pool):
    assert dir_pool.layers is None


def test_a_state_is_found_by_its_key_with_what_was_said_of_it(layers, zfs_pool):
    assert layers.states() == []
    state = keep(layers, key="a1", one="1")
    assert state.image == "image-1"
    assert state.name == f"{full(zfs_pool, 'image-1')}@a1"
    assert layers.states() == [state]
    assert (state.tree_digest, state.note) == (TREE, NOTE)


def test_each_state_has_what_was_there_when_it_was_kept(layers, zfs_pool):
    with layers.filling("image-1", None) as place:
        (place.path / "one").write_text("1")
        first = place.keep("a1", tree_digest=TREE, note=NOTE)
        (place.path / "one").write_text("changed")
        (place.path / "two").write_text("2")
        second = place.keep("a2", tree_digest=TREE, note=NOTE)
        (place.path / "three").write_text("3")
    assert read(zfs_pool, first) == {"one": "1"}
    assert read(zfs_pool, second) == {"one": "changed", "two": "2"}


def test_an_image_over_a_known_base_begins_with_its_files(layers, zfs_pool):
    base = keep(layers, one="1")
    with layers.filling("image-2", base) as place:
        assert (place.path / "one").read_text() == "1"
        (place.path / "one").write_text("mine")
        above = place.keep("b2", tree_digest=TREE, note=NOTE)
    assert read(zfs_pool, above) == {"one": "mine"}
    assert read(zfs_pool, base) == {"one": "1"}


def test_a_sandbox_has_everything_that_was_filled_and_none_of_the_restrictions(layers, zfs_pool):
    with layers.filling("image-1", None) as place:
        fill(place.path)
        before = describe(place.path)
        for key in ("setuid", "exec", "devices", "atime"):
            assert prop(full(zfs_pool, "image-1"), key) == "off"
        state = place.keep("a1", tree_digest=TREE, note=NOTE)
    sealed = zfs_pool.layers.generation(state, GENERATION)
    assert sealed == zfs_pool.snapshot(GENERATION)
    sandbox = zfs_pool.clone(GENERATION, "sandbox-1")
    assert describe(sandbox.path) == before
    for key in ("setuid", "exec", "devices"):
        assert prop(sandbox.name, key) == "on"
        assert prop(zfs_pool.full_name(GENERATION), key) == "off"
    with zfs_pool.reading(GENERATION) as path:
        assert describe(path) == before


def test_a_generation_of_a_state_is_one_like_any_other(layers, zfs_pool):
    state = keep(layers, one="1")
    sealed = layers.generation(state, GENERATION)
    assert prop(zfs_pool.full_name(GENERATION), "mounted") == "no"
    assert zfs_pool.seal(GENERATION) == sealed
    zfs_pool.point("web-template", GENERATION)
    assert zfs_pool.dependents(GENERATION) == [zfs_pool.full_name("web-template")]
    with pytest.raises(TemplateInUse):
        zfs_pool.destroy(GENERATION)
    with pytest.raises(Conflict):
        layers.generation(state, GENERATION)
    zfs_pool.unpoint("web-template", [GENERATION])
    zfs_pool.destroy(GENERATION)
    assert [one.relative for one in zfs_pool.find_all()] == []


def test_two_generations_of_one_state_have_guids_of_their_own(layers, zfs_pool):
    state = keep(layers, one="1")
    other = generation_name("db", 1, "0000000b")
    guids = {layers.generation(state, one).guid for one in (GENERATION, other)}
    assert len(guids) == 2


def test_nobody_takes_them_for_generations_or_enters_them(layers, zfs_pool):
    with layers.filling("image-1", None) as place:
        assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700
        assert zfs_pool.find_all() == []
        place.keep("a1", tree_digest=TREE, note=NOTE)
    assert zfs_pool.find_all() == []
    assert zfs_pool.sweep() == []


# --- failures ----------------------------------------------------------------------------------


def test_without_a_state_nothing_is_left_of_a_failure(layers, zfs_pool):
    with pytest.raises(KeyboardInterrupt), layers.filling("image-1", None) as place:
        (place.path / "one").write_text("1")
        raise KeyboardInterrupt
    assert layers.images() == []
    assert layers.sweep() == []


def test_what_was_kept_outlives_a_failure_and_the_rest_is_gone(layers, zfs_pool):
    with pytest.raises(OSError, match="torn"), layers.filling("image-1", None) as place:
        (place.path / "one").write_text("1")
        state = place.keep("a1", tree_digest=TREE, note=NOTE)
        (place.path / "two").write_text("x" * 100_000)
        raise OSError("torn")
    assert layers.states() == [state]
    assert prop(full(zfs_pool, "image-1"), "mounted") == "no"
    sh("zfs", "mount", full(zfs_pool, "image-1"))
    place = Path(prop(full(zfs_pool, "image-1"), "mountpoint"))
    assert [one.name for one in place.iterdir()] == ["one"]


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_killed_process_was_filling_is_swept(layers, zfs_pool, kept):
    child = os.fork()
    if child == 0:
        with layers.filling("image-1", None) as place:
            (place.path / "one").write_text("1")
            if kept:
                place.keep("a1", tree_digest=TREE, note=NOTE)
            (place.path / "two").write_text("2")
            os._exit(9)
    os.waitpid(child, 0)
    assert [image.name for image in layers.images()] == ["image-1"]
    assert layers.sweep() == [full(zfs_pool, "image-1")]
    assert layers.sweep() == []
    assert prop(full(zfs_pool), "mounted") == "no"
    assert [image.name for image in layers.images()] == (["image-1"] if kept else [])
    if kept:
        assert read(zfs_pool, layers.states()[0]) == {"one": "1"}
        assert prop(full(zfs_pool, "image-1"), "mounted") == "no"


def test_what_is_being_filled_is_neither_swept_nor_removed(layers, zfs_pool):
    with layers.filling("image-1", None) as place:
        (place.path / "one").write_text("1")
        assert layers.sweep() == []
        with pytest.raises(PoolBusy):
            layers.remove("image-1")
        state = place.keep("a1", tree_digest=TREE, note=NOTE)
    assert read(zfs_pool, state) == {"one": "1"}


def test_a_base_that_is_gone_is_said_to_be_gone(layers, zfs_pool):
    state = keep(layers, one="1")
    layers.remove("image-1")
    with pytest.raises(TemplateMissing), layers.filling("image-2", state):
        raise AssertionError("unreachable")
    with pytest.raises(TemplateMissing):
        layers.generation(state, GENERATION)
    assert layers.images() == []
    assert zfs_pool.find_all() == []


def test_a_name_that_is_taken_stays_as_it_is(layers, zfs_pool):
    state = keep(layers, one="1")
    with pytest.raises(Conflict), layers.filling("image-1", None):
        raise AssertionError("unreachable")
    assert read(zfs_pool, state) == {"one": "1"}


def test_a_snapshot_that_somebody_else_made_is_no_state(layers, zfs_pool):
    keep(layers, one="1")
    sh("zfs", "snapshot", f"{full(zfs_pool, 'image-1')}@mine")
    assert [state.key for state in layers.states()] == ["a1"]


@pytest.mark.parametrize("odd", ["", "-a", "a b", "a@b", "A", "a/b", "a" * 101])
def test_an_odd_key_is_never_part_of_a_name(layers, odd):
    with layers.filling("image-1", None) as place, pytest.raises(ValueError, match="not a key"):
        place.keep(odd, tree_digest=TREE, note=NOTE)


def test_one_at_a_time_makes_a_state(layers):
    with layers.alone("a1", patience=0):
        with pytest.raises(PoolBusy), layers.alone("a1", patience=0):
            raise AssertionError("unreachable")
        with layers.alone("a2", patience=0):
            pass
    with layers.alone("a1", patience=0):
        pass


# --- making room -------------------------------------------------------------------------------


def test_it_says_what_each_image_holds_and_who_needs_it(layers, zfs_pool):
    assert layers.images() == []
    state = keep(layers, one="x" * 300_000)
    keep(layers, "image-2", "b2", over=state, two="2")
    layers.generation(state, GENERATION)
    first, second = layers.images()
    assert (first.name, first.states) == ("image-1", (state,))
    assert first.clones == (full(zfs_pool, "image-2"), zfs_pool.full_name(GENERATION))
    assert (second.name, second.clones) == ("image-2", ())
    assert first.used_bytes > 300_000 > second.used_bytes > 0


def test_removing_is_refused_while_something_is_cloned_from_it(layers, zfs_pool):
    with layers.filling("image-1", None) as place:
        state = place.keep("a1", tree_digest=TREE, note=NOTE)
        later = place.keep("a2", tree_digest=TREE, note=NOTE)
    layers.generation(state, GENERATION)
    with pytest.raises(TemplateInUse) as refused:
        layers.remove("image-1")
    assert refused.value.extra["clones"] == [zfs_pool.full_name(GENERATION)]
    assert layers.states() == [state, later]
    # The order of a template's end: its generation first, then, some day, what it was made of.
    zfs_pool.destroy(GENERATION)
    layers.remove("image-1")
    assert layers.images() == []
    layers.remove("image-1")
