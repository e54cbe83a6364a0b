"""`manage.py reimport`: what it does without a registry. tests/e2e/test_queue.py has the rest."""

import json

import pytest
from django_q.models import OrmQ

from coppice_site.readers import host_platform
from deploy import images
from templates_app import store
from templates_app.events import Digests
from tests import layouts
from tests.house import imported, meta

REFUSED = "oci:localhost:1/x/y:1"  # not among the allowed hosts, so nobody is asked


@pytest.fixture
def stocked(shop):
    """One template from an image, and one made by hand."""
    shop.hand_make("house")
    assert shop.run("reload_templates").status == 0
    dataset = f"{shop.pool}/coppice/web-g1-0a0b0c0d"
    made = imported("web", reference=REFUSED, dataset=dataset, origin=f"{dataset}@base")
    store.append(made, meta=meta())
    return shop


def test_it_goes_on_after_a_failure_and_says_each_outcome(stocked):
    size = store.size()
    done = stocked.run("reimport", "--all", "--json")
    assert done.status == 1
    summary = json.loads(done.out)
    assert [(one["name"], one["action"], one["code"]) for one in summary["templates"]] == [
        ("house", "hand-made", None),
        ("web", "failed", "registry_not_allowed"),
    ]
    assert "1 of 2 failed." in done.err
    assert store.size() == size


def test_the_table_names_outcome_digest_and_remark(stocked):
    done = stocked.run("reimport", "house", "web")
    assert done.status == 1
    assert "hand-made" in done.out and "registry_not_allowed" in done.out
    assert "house: hand-made" in done.err  # progress, where there is no terminal


def test_a_dry_run_changes_nothing(stocked):
    before = store.size()
    done = stocked.run("reimport", "--all", "--dry-run", "--queue", "--json")
    assert [one["action"] for one in json.loads(done.out)["templates"]] == ["hand-made", "failed"]
    assert store.size() == before and not OrmQ.objects.exists()


def test_queue_hands_each_template_to_the_workers(stocked):
    done = stocked.run("reimport", "--all", "--queue", "--json")
    assert done.status == 0
    summary = json.loads(done.out)
    assert [one["action"] for one in summary["templates"]] == ["queued", "queued"]
    tasks = [row.task for row in OrmQ.objects.all()]
    assert sorted(task["args"][0] for task in tasks) == ["house", "web"]
    assert {task["args"][1] for task in tasks} == {summary["job"]}
    assert summary["job"] in done.err


def test_one_unknown_name_stops_all(stocked):
    done = stocked.run("reimport", "web", "nobody", "--queue")
    assert done.status == 1 and "template_not_found" in done.err
    assert not OrmQ.objects.exists()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        (["web", "--all"], 2),
        (["--all", "--jobs", "0"], 2),
        (["--all", "--jobs", "17"], 2),
        (["WEB"], 2),
        (["--all", "--jobs", "x"], 1),
    ],
)
def test_bad_usage(stocked, words, status):
    done = stocked.run("reimport", *words)
    assert (done.status, done.out) == (status, "")


def test_nothing_to_do_is_no_failure(shop):
    done = shop.run("reimport", "--all", "--json")
    assert done.status == 0 and json.loads(done.out)["templates"] == []


def test_an_image_file_is_read_again_where_it_was_given(shop, settings, tmp_path):
    """What is recorded as its reference names no directory."""
    root = tmp_path / "images"
    settings.COPPICE_IMPORT_ROOTS, settings.COPPICE_ENGINE = (root,), "native"
    image = images.image([images.layer([images.file("a", "x")])], platform=host_platform())
    layouts.write(root / "web", {"1": image})
    dataset = f"{shop.pool}/coppice/web-g1-0a0b0c0d"
    made = imported(
        "web",
        scheme="oci-layout",
        reference=f"oci-layout:web:1@{image.digest}",
        reference_given=f"{root}/web:1",
        digests=Digests(index=None, manifest=image.digest, config=image.digest),
        dataset=dataset,
        origin=f"{dataset}@base",
    )
    store.append(made, meta=meta())
    (item,) = json.loads(shop.run("reimport", "--all", "--dry-run", "--json").out)["templates"]
    assert (item["action"], item["code"]) == ("unchanged", None)
    layouts.write(root / "web", {"1": images.image([], platform=host_platform())})
    (item,) = json.loads(shop.run("reimport", "--all", "--dry-run", "--json").out)["templates"]
    assert item["action"] == "import"
