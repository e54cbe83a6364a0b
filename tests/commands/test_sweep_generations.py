"""`manage.py sweep_generations`: says what goes; what it does has tests beside the use case."""

from __future__ import annotations

import json

from templates_app import store
from tests import house


def test_it_says_what_goes_and_what_went(shop, settings):
    settings.COPPICE_RETAIN_GENERATIONS = 0
    for number in (1, 2):
        dataset = f"{shop.pool}/coppice/web-g{number}-{number:08x}"
        event = house.imported("web", number, dataset=dataset, origin=f"{dataset}@base")
        store.append([event], meta=house.meta())
    done = shop.run("sweep_generations", "--dry-run", "--json")
    assert [one["generation"] for one in json.loads(done.out)["removed"]] == [1]
    done = shop.run("sweep_generations")
    assert done.out.startswith("web\t1\t")
    assert "Removed 1 generation(s)." in done.err
    assert [one.type for one in store.read()] == ["imported", "imported", "retired"]
    done = shop.run("sweep_generations", "--json")
    assert json.loads(done.out) == {
        "removed": [], "inUse": [], "failed": [], "finished": [], "dryRun": False
    }  # fmt: skip
