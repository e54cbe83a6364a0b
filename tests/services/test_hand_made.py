"""What an operator made by hand is adopted, moved aside, left alone: never lost."""

from __future__ import annotations

import socket

import pytest

from templates_app import store
from templates_app.errors import AdoptedInTheWay, MalformedName, TemplateNotFound
from templates_app.models import Template
from templates_app.services import destroy, launches, recovery, reload
from tests import house
from tests.services.conftest import WHO, each_once, hand_make, import_it, standing, types

pytestmark = each_once


def test_what_is_made_anew_under_the_name_of_a_destroyed_template_is_nobodys_but_the_operators(
    driver,
):
    hand_make(driver, "house")
    reload.reload(context=WHO)
    destroy.destroy(name="house", context=WHO)
    assert standing(driver) == []
    hand_make(driver, "house", "another")
    before = driver.snapshot("house-template")
    assert recovery.recover(context=WHO) == []
    assert driver.snapshot("house-template") == before
    reload.reload(context=WHO)
    assert Template.objects.get(pk="house").current.adopted


def test_a_destroyed_adopted_template_does_not_cost_a_later_import_its_alias(driver):
    hand_make(driver, "house")
    reload.reload(context=WHO)
    destroy.destroy(name="house", context=WHO)
    import_it("house")
    before = driver.snapshot("house-template")
    assert recovery.recover(context=WHO) == []
    assert driver.snapshot("house-template") == before


def test_an_import_does_not_take_the_name_of_what_is_not_adopted_yet(driver):
    hand_make(driver, "house")
    with pytest.raises(AdoptedInTheWay, match="not known here yet"):
        import_it("house")
    assert types() == ["import-failed"]
    assert standing(driver) == ["house-template"]
    with pytest.raises(TemplateNotFound):
        destroy.destroy(name="house", context=WHO)
    assert standing(driver) == ["house-template"]


def test_until_a_forced_import_is_done_the_hand_made_template_is_current_and_in_its_place(
    driver, shelf
):
    hand_make(driver, "house")
    reload.reload(context=WHO)
    before = driver.snapshot("house-template")

    def look() -> None:
        assert driver.snapshot("house-template") == before
        launches.create_sandbox(template="house", name="meanwhile", context=WHO)
        launches.destroy_sandbox(sandbox_id="meanwhile", context=WHO)
        assert reload.reload(context=WHO).event.missing == ()

    shelf.during = look
    event = import_it("house", force=True).event
    assert event.generation == 1
    aside = event.moved_aside.removeprefix(driver.full_name("x").removesuffix("x"))
    assert driver.snapshot(aside).guid == before.guid
    destroy.destroy(name="house", context=WHO)
    assert standing(driver) == []


def test_a_forced_import_that_fails_leaves_the_hand_made_template_where_it_was(driver, shelf):
    hand_make(driver, "house")
    reload.reload(context=WHO)
    before = driver.snapshot("house-template")

    def fail() -> None:
        raise KeyboardInterrupt

    shelf.during = fail
    with pytest.raises(KeyboardInterrupt):
        import_it("house", force=True)
    assert driver.snapshot("house-template") == before
    assert standing(driver) == ["house-template"]
    assert not Template.objects.get(pk="house").missing


def test_what_vanished_needs_no_moving(driver):
    hand_make(driver, "house")
    reload.reload(context=WHO)
    driver.destroy("house-template")
    assert import_it("house", force=True).event.moved_aside is None


def test_one_that_cannot_be_adopted_is_a_finding_and_keeps_no_other_from_it(driver, tmp_path):
    place = hand_make(driver, "odd")
    hand_make(driver, "plain")
    listener = socket.socket(socket.AF_UNIX)
    if driver.kind == "zfs":
        from tests.pools import sh, stubbornly

        stubbornly("zfs", "destroy", f"{driver.full_name('odd-template')}@base")
    link = tmp_path / "s"  # a socket's path is short
    link.symlink_to(place)
    listener.bind(str(link / "log"))
    listener.close()
    if driver.kind == "zfs":
        sh("zfs", "snapshot", f"{driver.full_name('odd-template')}@base")
    event = reload.reload(context=WHO).event
    assert [one.template for one in event.added] == ["plain"]
    (finding,) = event.findings
    assert finding.code == "not_adopted"
    assert finding.subject == driver.full_name("odd-template")
    assert "socket" in finding.detail


def test_a_sandbox_is_never_named_like_an_alias(driver):
    import_it()
    with pytest.raises(MalformedName):
        launches.create_sandbox(template="web", name="x-template", context=WHO)


def test_what_an_import_has_moved_aside_is_never_taken_for_its_leavings(driver):
    """An import that failed, by the log, and did not come to move it back."""
    hand_make(driver, "web")
    driver.move("web-template", "coppice/web-g0-deadbeef")
    store.append([house.failed("web", import_id="deadbeef")], meta=house.meta())
    event = reload.reload(context=WHO, fix=True).event
    assert [one.code for one in event.findings] == ["orphan_dataset"] and event.fixed == ()
    assert "coppice/web-g0-deadbeef" in standing(driver)
