"""`manage.py reload_templates`: compares pool and log, as POST /templates/reload does."""

import json
import shutil

from templates_app import store
from templates_app.models import Template
from tests import house


def test_it_prints_each_difference_on_a_line(shop):
    shop.hand_make("web")
    (shop.pool / "plain-template").mkdir()
    done = shop.run("reload_templates")
    assert done.status == 0
    lines = done.out.splitlines()
    assert f"added\tweb\t{shop.pool}/web-template@base" in lines
    assert [line.split("\t")[0] for line in lines] == ["added", "finding"]
    assert f"Reloaded dir:{shop.pool}: 1 added, 1 finding" in done.err
    shutil.rmtree(shop.pool / "web-template@base")
    assert "missing\tweb\n" in shop.run("reload_templates").out
    assert Template.objects.get(pk="web").missing
    shop.hand_make("web")
    assert "web" in shop.run("reload_templates").out


def test_as_json_it_prints_the_events_data(shop):
    shop.hand_make("web")
    data = json.loads(shop.run("reload_templates", "--json").out)
    (event,) = store.read()
    assert data == {**event.event.to_json(), "position": event.position}
    assert event.meta.source == "command"


def test_a_dry_run_says_what_would_be_repaired_and_a_repair_what_was(shop):
    shop.run("reload_templates")
    left = shop.pool / "coppice" / "web-g1-00c0ffee@base"
    left.mkdir()
    store.append([house.failed("web", import_id="00c0ffee")], meta=house.meta())
    done = shop.run("reload_templates", "--dry-run", "--fix")
    line = f"\torphan_dataset\t{shop.pool}/coppice/web-g1-00c0ffee: "
    assert done.out == f"fixable{line}Would remove it.\n"
    assert "Nothing was changed: this was a dry run." in done.err
    assert (store.size(), left.exists()) == (2, True)
    done = shop.run("reload_templates", "--fix", "--verify")
    assert done.out == f"fixed{line}Removed.\n"
    assert (store.size(), left.exists()) == (3, False)


def test_no_difference_is_an_event_too(shop):
    done = shop.run("reload_templates")
    assert (done.status, done.out) == (0, "")
    assert "nothing changed" in done.err
    assert store.size() == 1


def test_without_its_pool_it_fails_and_records_nothing(shop, settings):
    settings.COPPICE_POOL = "dir:/nonexistent/pool"
    done = shop.run("reload_templates")
    assert (done.status, done.out) == (1, "")
    assert "pool_unavailable" in done.err
    assert store.size() == 0
