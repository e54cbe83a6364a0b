"""`manage.py check_drift` and `/drift`: what real tags in a real registry have become."""

from __future__ import annotations

import json
import time

import pytest

from deploy import images
from templates_app import store
from templates_app.events import Digests
from templates_app.models import Generation
from templates_app.services import drift
from templates_app.services.readmodels import check as readmodels_differ
from tests.house import digest, imported, meta


def an_image(text: str) -> images.Document:
    return images.image([images.layer([images.file("motd", text)])])


@pytest.fixture
def tagged(shop, registry, settings):
    """``tagged(name, tag)`` is a template that was imported from what the tag names now."""
    settings.COPPICE_REGISTRIES_INSECURE = (registry.host,)

    def make(name: str, tag: str, *, host: str = "", generation: int = 1, **changes: object) -> str:
        text = changes.pop("text", "one")
        found = registry.push("drift/x", tag, an_image(str(text)))
        event = imported(
            name,
            generation,
            reference=f"oci:{host or registry.host}/drift/x:{tag}",
            digests=Digests(index=None, manifest=found, config=digest("config")),
            **changes,
        )
        store.append(event, meta=meta())
        return found

    return make


def states(done) -> list[tuple[str, str, bool]]:
    return [(one["template"], one["state"], one["changed"]) for one in json.loads(done.out)]


def drifted() -> list[tuple[str, str, str]]:
    events = [one.event for one in store.read() if one.type == "drifted"]
    return [(one.template, one.before, one.state) for one in events]


def test_each_change_of_a_tag_is_recorded_once(shop, tagged, registry):
    shop.hand_make("house")
    assert shop.run("reload_templates").status == 0
    first = tagged("web", "moving")
    tagged("again", "moving")
    tagged("fixed", "moving", floating=False)

    def look() -> list[tuple[str, str, bool]]:
        done = shop.run("check_drift", "--json")
        assert done.status == 0
        return states(done)

    pinned = [("fixed", "pinned", False), ("house", "pinned", False)]
    assert look() == [("again", "current", False), *pinned, ("web", "current", False)]
    assert drifted() == []

    second = registry.push("drift/x", "moving", an_image("two"))
    assert look() == [("again", "moved", True), *pinned, ("web", "moved", True)]
    assert look() == [("again", "moved", False), *pinned, ("web", "moved", False)]
    (web,) = drift.known(names=["web"])
    assert (web.imported_digest, web.found_digest) == (first, second)
    events = [one for one in store.read() if one.type == "drifted"]
    assert web.since == next(one.recorded_at for one in events if one.event.template == "web")

    registry.delete("drift/x", "moving")
    done = shop.run("check_drift", "web")
    assert done.status == 0
    assert done.out == f"web\tgone\toci:{registry.host}/drift/x:moving\t-\n"
    registry.push("drift/x", "moving", an_image("one"))
    assert look() == [("again", "current", True), *pinned, ("web", "current", True)]
    assert sorted(drifted()) == [
        ("again", "current", "moved"), ("again", "moved", "current"),
        ("web", "current", "moved"), ("web", "gone", "current"), ("web", "moved", "gone"),
    ]  # fmt: skip

    # A new import begins anew, and a rebuild gives the same rows.
    registry.push("drift/x", "moving", an_image("three"))
    shop.run("check_drift", "web")
    tagged("web", "moving", generation=2, text="three")
    assert drift.known(names=["web"])[0].state == "current"
    assert Generation.objects.get(pk="web@1").drift == "moved"
    assert readmodels_differ()[1] == []


def test_a_registry_is_asked_once_for_a_reference_and_nothing_is_pulled(
    shop, tagged, faults, settings
):
    settings.COPPICE_REGISTRIES_INSECURE += (faults.host,)
    for name in ("one", "two"):
        tagged(name, "asked", host=faults.host)
    faults.on("/manifests/asked", status=304)  # what a registry says of an ETag that it has still
    assert states(shop.run("check_drift", "--json")) == [
        ("one", "current", False), ("two", "current", False)
    ]  # fmt: skip
    assert faults.requests == [("HEAD", "/v2/drift/x/manifests/asked")]


def test_a_dead_registry_costs_one_question_and_holds_up_no_other(
    shop, tagged, faults, settings, monkeypatch
):
    settings.COPPICE_REGISTRIES_INSECURE += (faults.host,)
    monkeypatch.setattr(drift, "ASK_SECONDS", 0.5)
    tagged("dead-1", "one", host=faults.host)
    tagged("dead-2", "two", host=faults.host)
    tagged("living", "three")
    faults.on("/manifests/", hang=True)
    begun = time.monotonic()
    done = shop.run("check_drift", "--json")
    assert time.monotonic() - begun < 20
    assert done.status == 6
    assert "Not every registry could be asked." in done.err
    assert states(done) == [
        ("dead-1", "unreachable", False),
        ("dead-2", "unreachable", False),
        ("living", "current", False),
    ]
    assert len(faults.requests) == 1
    assert drifted() == []  # that it does not answer says nothing of its tags


def test_a_name_that_is_no_template_is_an_error(shop):
    done = shop.run("check_drift", "nobody")
    assert done.status == 1
    assert "template_not_found" in done.err
