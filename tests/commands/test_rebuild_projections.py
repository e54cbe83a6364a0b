"""`manage.py rebuild_projections`: the read models from the log alone, and checked against it."""

from templates_app import projections, store
from templates_app.models import Generation, Template
from tests.house import imported, meta


def told(shop) -> dict:
    store.append([imported("web"), imported("db")], meta=meta())
    store.append(imported("web", 2), meta=meta())
    return projections.rows()


def test_what_is_there_is_what_the_log_gives(shop):
    told(shop)
    done = shop.run("rebuild_projections", "--check")
    assert (done.status, done.out) == (0, "")
    assert "what 3 events give" in done.err


def test_a_changed_row_is_named_with_its_columns_and_nothing_is_repaired(shop):
    told(shop)
    Generation.objects.filter(pk="web@2").update(snapshot_guid="666", entries=1)
    Template.objects.filter(pk="db").delete()
    done = shop.run("rebuild_projections", "--check")
    assert done.status == 1
    assert sorted(done.out.splitlines()) == [
        "Generation web@2: snapshot_guid, entries differ",
        "Template db: the row is gone",
    ]
    assert "2 row(s) differ" in done.err
    assert Generation.objects.get(pk="web@2").snapshot_guid == "666"
    assert not Template.objects.filter(pk="db").exists()


def test_a_rebuild_makes_the_rows_anew(shop):
    before = told(shop)
    Generation.objects.update(snapshot_guid="666")
    Template.objects.all().delete()
    Generation.objects.all().delete()
    done = shop.run("rebuild_projections")
    assert (done.status, done.out) == (0, "")
    assert "Folded 3 events." in done.err
    assert projections.rows() == before
    assert shop.run("rebuild_projections", "--check").status == 0


def test_a_row_that_the_log_does_not_give_is_named(shop):
    told(shop)
    (row,) = Template.objects.filter(pk="db")
    row.pk = "forged"
    row.save(force_insert=True)
    done = shop.run("rebuild_projections", "--check")
    assert (done.status, done.out) == (1, "Template forged: a row that the log does not give\n")


def test_an_empty_log_gives_nothing(shop):
    assert shop.run("rebuild_projections", "--check").status == 0
    assert "Folded 0 events." in shop.run("rebuild_projections").err
