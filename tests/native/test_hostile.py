"""The hostile corpora through whole imports: as root and as an ordinary user, on both pools.

What is refused is refused by the reader, which sees neither pool nor user, and gets every case in
test_tar.py and test_model.py: so here it is one for each rule. `make soak` tries all everywhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploy import images
from templates_app.datasets import from_pool
from tests import hostile, layouts, ordinary
from tests.native.archives import END, file, pax
from tests.pools import sh

STACKS, STREAMS = "some:stack:", "some:stream:"
if "SOAK_SECONDS" in os.environ:
    STACKS, STREAMS = "stack:", "stream:"


@pytest.mark.slow
@pytest.mark.parametrize("cases", [STACKS, STREAMS])
def test_as_root_on_directories(cases: str, tmp_path: Path) -> None:
    assert hostile.tried(hostile.on_directory(tmp_path), hostile.chosen(cases)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("cases", "namespaces"), [(STACKS, False), (STREAMS, True)])
def test_as_an_ordinary_user_on_directories(cases: str, namespaces: bool) -> None:
    """Stacks where it has the least: without a root directory of the writer's own, only what the
    model and the writer do themselves holds."""
    with ordinary.place() as place:
        said = ordinary.run("tests.hostile", place, cases, seconds=300, namespaces=namespaces)
    assert json.loads(said) == []


def test_which_confinement_an_ordinary_user_has() -> None:
    for namespaces, missing in ((True, []), (False, ["a network", "a root directory"])):
        with ordinary.place() as place:
            said = ordinary.run(
                "tests.hostile", place, "confinement", namespaces=namespaces, seconds=60
            )
        assert json.loads(said) == [f"{one} of its own" for one in missing]


def on_zfs(zfs_root: str, tmp_path: Path, pool_state: Path, *options: str) -> hostile.Ground:
    """In a dataset of its own, for its sentinels lie above it."""
    place = tmp_path / "hostile"
    place.mkdir()
    root = f"{zfs_root}/inner"
    sh("zfs", "create", *options, "--", root)
    mountpoint = Path(sh("zfs", "get", "-H", "-o", "value", "mountpoint", root).strip())
    pool = from_pool(f"zfs:{root}", step_seconds=60, state_dir=pool_state)
    return hostile.on_zfs(place, pool, mountpoint)


@pytest.fixture
def ground(zfs_root: str, tmp_path: Path, pool_state: Path) -> hostile.Ground:
    return on_zfs(zfs_root, tmp_path, pool_state)


@pytest.mark.slow
def test_what_is_accepted_as_root_on_zfs(ground: hostile.Ground) -> None:
    found = hostile.CASES.values()
    cases = [one for one in found if not one.rule and one.name not in ground.refuses]
    assert hostile.tried_together(ground, cases) == []


@pytest.mark.slow
def test_what_is_refused_as_root_on_zfs(ground: hostile.Ground) -> None:
    found = hostile.chosen(STACKS, STREAMS)
    cases = [one for one in found if one.rule or one.name in ground.refuses]
    assert hostile.tried(ground, cases) == []


def test_an_attribute_that_zfs_fuse_would_not_keep_as_it_is(ground: hostile.Ground) -> None:
    """It takes a thousand bytes without a word, and has eight others then."""
    archive = pax((b"SCHILY.xattr.user.note", bytes(1000))) + file(b"f", b"x") + END
    case = hostile.Case("attribute", (archive,), rule="attributes")
    assert hostile.tried(ground, [case]) == []


def test_labels_and_annotations_are_no_properties_of_a_dataset(ground: hostile.Ground) -> None:
    said = {"mountpoint": "/etc", "org.freebsd.jail.allow.mount": "1", "coppice:note": "x"}
    layer = images.layer([images.file("a", "x")])
    orders = {"User": "0:0", "Labels": said, "Env": ["LD_PRELOAD=/x.so"], "Volumes": {"/etc": {}}}
    made = {
        "plain": images.image([layer]),
        "orders": images.image(
            [layer], config={"config": orders, "annotations": said}, manifest={"annotations": said}
        ),
    }
    layouts.write(ground.layout, made)
    ground.prepare()
    properties = []
    for number, name in enumerate(made):
        source = ground.source(name)
        dataset = hostile.run(ground, source, hostile.id_of_import(number), []).dataset
        keys = "property,value"
        found = sh("zfs", "get", "-H", "-s", "local,received", "-o", keys, "all", dataset)
        properties.append(found)
    assert properties[0] == properties[1] and "canmount" in properties[0]


@pytest.mark.parametrize(
    ("option", "stack"),
    [
        ("casesensitivity=insensitive", "stack:both-cases"),
        ("normalization=formD", "stack:both-forms-of-unicode"),
    ],
)
def test_a_pool_that_takes_two_names_for_one(
    option: str, stack: str, zfs_root: str, tmp_path: Path, pool_state: Path
) -> None:
    ground = on_zfs(zfs_root, tmp_path, pool_state, "-o", option)
    ground.refuses = {stack: "folded-names"}
    assert hostile.tried(ground, hostile.chosen("stack:both-", "stack:dot-dot-clamped")) == []


def test_an_ordinary_user_has_no_zfs_and_is_told(zfs_root: str) -> None:
    with ordinary.place() as place:
        said = json.loads(ordinary.run("tests.hostile", place, f"zfs:{zfs_root}"))
    assert said["code"] == "pool_unavailable"
    assert "not to this user" in said["detail"] and "server's user" in said["next"]
