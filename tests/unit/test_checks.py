"""System checks: each is silent as things are, and speaks when its rule is broken.

``templates_app.E001`` (the log's triggers) needs a database: tests/store/test_triggers.py.
"""

from __future__ import annotations

import pytest
from django.conf import settings as django_settings
from django.core import checks

QUEUE = dict(django_settings.Q_CLUSTER)


def found() -> list[str]:
    return [one.id for one in checks.run_checks() if one.id.startswith("templates_app.")]


def test_all_is_well_as_it_is_shipped():
    assert found() == []


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ({}, 3 * QUEUE["timeout"] + 5),
        ({"workers": 2}, 2 * QUEUE["timeout"] + 5),
        ({"bulk": 10}, 12 * QUEUE["timeout"] + 5),
        ({"queue_limit": 4, "workers": 2}, 4 * QUEUE["timeout"] + 5),
        ({"timeout": 10}, 35),
    ],
)
def test_a_retry_that_could_run_a_task_twice_stops_the_start(settings, change: dict, least: int):
    settings.Q_CLUSTER = {**QUEUE, **change, "retry": least}
    (error,) = checks.run_checks()
    assert (error.id, error.is_serious()) == ("templates_app.E002", True)
    assert str(least) in error.msg and "retry > timeout" in error.hint
    settings.Q_CLUSTER = {**QUEUE, **change, "retry": least + 1}
    assert found() == []


def test_a_quota_that_nobody_is_held_to_stops_the_start(settings):
    settings.COPPICE_POOL, settings.COPPICE_QUOTA_BYTES = "dir:/srv/coppice", 1
    (error,) = checks.run_checks()
    assert (error.id, error.is_serious()) == ("templates_app.E003", True)
    settings.COPPICE_POOL = "zfs:zroot/jails"
    assert found() == []
