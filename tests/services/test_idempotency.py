"""The same import asked for again, and an import only of what was seen."""

from __future__ import annotations

import pytest

from templates_app import store
from templates_app.errors import (
    CoppiceError,
    IdempotencyKeyReused,
    ImportInProgress,
    PreconditionFailed,
    TemplateNotFound,
)
from templates_app.services import destroy, generations, idempotency, imports, queries
from tests.services.conftest import WHO, Shelf, each_once, import_it, standing, types

pytestmark = each_once


def once(key: str = "k", name: str = "web", source: str = "made:web", force: bool = False):
    return idempotency.import_once(key=key, name=name, source=source, force=force, context=WHO)


def test_a_repeated_request_gets_the_first_ones_outcome(driver, shelf: Shelf):
    first = once()
    shelf.files["etc/motd"] = "two"
    import_it(force=True)
    again = once()
    assert again == first
    row = queries.outcome(again)
    assert (row.template.current.number, row.template.position) == (1, first.position)
    assert queries.template(name="web").template.current.number == 2
    destroy.destroy(name="web", context=WHO)
    assert queries.outcome(once()).template.current.number == 1
    assert types() == ["imported", "imported", "destroyed"]


@pytest.mark.parametrize("other", [{"name": "db"}, {"source": "made:db"}, {"force": True}])
def test_a_key_is_for_one_request(driver, other):
    once()
    with pytest.raises(IdempotencyKeyReused, match="imported web generation 1"):
        once(**other)
    assert types() == ["imported"]


def test_another_callers_key_is_another(driver):
    once()
    import dataclasses

    other = dataclasses.replace(WHO, actor="somebody else")
    made = idempotency.import_once(key="k", name="db", source="made:db", force=False, context=other)
    assert made.event.template == "db"


def test_what_failed_is_tried_again(driver, shelf: Shelf):
    def fail() -> None:
        raise CoppiceError("It broke.")

    shelf.during = fail
    with pytest.raises(CoppiceError):
        once()
    shelf.during = lambda: None
    assert once().event.generation == 1
    assert types() == ["import-failed", "imported"]


def test_while_the_first_is_running_it_is_told(driver, shelf: Shelf):
    told = []

    def again() -> None:
        shelf.during = lambda: None
        with pytest.raises(ImportInProgress):
            once()
        told.append(True)

    shelf.during = again
    once()
    assert told and types() == ["imported"]


def test_one_that_ends_just_then_is_found(driver, monkeypatch):
    """Between the look for the event and the look at the template."""
    really, looks = store.find, []

    def find(event_id):
        looks.append(event_id)
        if len(looks) == 1:
            imports.import_template(name="web", source="made:web", context=WHO, event_id=event_id)
            return None
        return really(event_id)

    monkeypatch.setattr(store, "find", find)
    assert once().event.generation == 1
    assert types() == ["imported"]


def test_an_import_that_was_overtaken_ends_without_a_generation(driver, shelf: Shelf):
    import_it()
    shelf.files["etc/motd"] = "two"
    import_it(force=True)

    def unless() -> None:
        if queries.template(name="web").template.current.number != 2:
            raise PreconditionFailed("It has changed.")

    shelf.during = lambda: generations.rollback(name="web", context=WHO)
    before = standing(driver)
    with pytest.raises(PreconditionFailed):
        import_it(force=True, unless=unless)
    assert standing(driver) == before
    assert types()[-2:] == ["rolled-back", "import-failed"]
    with pytest.raises(TemplateNotFound):
        queries.template(name="db")
