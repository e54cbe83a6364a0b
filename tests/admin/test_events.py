"""The log in the browser: found, read whatever it holds, told as a history, taken away."""

from __future__ import annotations

import datetime
import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from templates_app import store
from templates_app.admin import events
from templates_app.events import (
    Attached,
    EvidenceAttached,
    KeyRevoked,
    PolicyChanged,
    SettingChange,
)
from templates_app.models import Event
from templates_app.services import audit
from tests.house import (
    REQUEST,
    TABLE,
    Story,
    auditor,
    changed_tree,
    digest,
    launched,
    meta,
    reloaded,
    strange,
    text,
    verified,
    visitor,
)


def test_events_are_found_by_what_an_auditor_knows_of_them(told_on_both: Story):
    client = auditor()
    today = Event.objects.get(pk=3).recorded_at
    event_id = Event.objects.get(pk=3).event_id
    expected = {
        "q=3": {3},
        f"q={REQUEST}": {5, 6, 7, 8},
        "q=nightly": {5, 6, 7, 8},
        "q=sigrid": {2},
        "q=gone": {5, 11},
        "q=build-7": {4, 12},
        f"q={event_id}": {3},
        f"q={digest('manifest gone 1')}": {5, 11},
        "q=%3Cscript%3E": {10},
        "q=nobody": set(),
        "q=1999-12": set(),
        "q=1999-12-31": set(),
        "q=1999-13-45": set(),
        f"q={today:%Y-%m-%d}": set(range(1, 16)),
        f"q={today:%Y-%m}": set(range(1, 16)),
        "type=import-failed": {7},
        "type=other": {15},
        "source=cli": {14},
        "when=hour": set(range(1, 16)),
        "when=week&type=sandbox-refused": {9},
    }
    for query, positions in expected.items():
        found = client.get(f"{TABLE}/event/?{query}").context_data["cl"].result_list
        assert {row.position for row in found} == positions, query


def test_a_day_and_a_month_have_the_events_that_were_recorded_in_them(told_on_both: Story):
    before = store.size()
    for day in ((2040, 1, 31), (2040, 2, 1), (2040, 12, 31)):
        strange("praised", "{}", "lost", at=datetime.datetime(*day, 23, 59, tzinfo=datetime.UTC))
    client, counts = auditor(), {}
    for term in ("2040-01", "2040-01-31", "2040-02-01", "2040-02", "2040-12", "2040-01-30"):
        found = client.get(f"{TABLE}/event/?q={term}").context_data["cl"].result_list
        counts[term] = [row.position - before for row in found]
    assert counts == {
        "2040-01": [1],
        "2040-01-31": [1],
        "2040-02-01": [2],
        "2040-02": [2],
        "2040-12": [3],
        "2040-01-30": [],
    }


def test_the_past_week_leaves_out_what_is_older(any_database: str):
    long_ago = datetime.datetime(2020, 1, 31, tzinfo=datetime.UTC)
    for type_ in ("import-failed", "sandbox-refused"):
        strange(type_, "{}", "web", at=long_ago)
    client = auditor()
    assert client.get(f"{TABLE}/event/?when=year").context_data["cl"].result_count == 0
    for type_ in ("import-failed", "sandbox-refused"):
        strange(type_, "{}", "web")
    found = client.get(f"{TABLE}/event/?when=week").context_data["cl"].result_list
    assert [row.position for row in found] == [4, 3]
    figures = client.get("/admin/").context_data["figures"]
    assert (figures.failed, figures.refused, figures.events) == (1, 1, 4)


def test_a_search_finds_the_newest_and_no_more_than_can_be_paged(told: Story, monkeypatch):
    monkeypatch.setattr(audit, "FOUND", 2)
    found = auditor().get(f"{TABLE}/event/?q=fbsd14-min").context_data["cl"].result_list
    assert [row.position for row in found] == [13, 12]


def test_the_log_is_listed_newest_first(told: Story):
    rows = auditor().get(f"{TABLE}/event/").context_data["cl"].result_list
    assert [row.position for row in rows] == list(range(15, 0, -1))


def test_an_event_shows_everything_that_was_recorded(told: Story):
    row = Event.objects.get(pk=8)
    page = auditor().get(f"{TABLE}/event/8/change/")
    shown = text(page)
    for fact in (
        "Imported fbsd14-min generation 2",
        f"{row.recorded_at:%Y-%m-%d %H:%M:%S.%f} UTC",
        row.leaf_hash,
        str(row.event_id),
        "template:fbsd14-min, version 2",
        '"importId":',
        f'"requestId": "{REQUEST}"',
        f"Manifest digest {told.min2.digests.manifest}",
    ):
        assert fact in shown, fact
    assert [one.position for one in page.context_data["page"].same_request] == [5, 6, 7]
    assert f"{TABLE}/event/7/change/" in page.content.decode()
    assert f"{TABLE}/event/9/change/" in page.content.decode()


def test_the_filtered_list_is_taken_away_as_the_lines_of_the_export(told_on_both: Story):
    every, client = list(store.export()), auditor()
    for query, positions in {
        "": range(1, 16),
        "?q=nightly": (5, 6, 7, 8),
        "?type=other": (15,),
        "?q=nobody": (),
        "?q=nightly&type=imported&p=9": (5, 6, 8),
    }.items():
        answer = client.get(f"{TABLE}/event/export/{query}")
        lines = b"".join(answer.streaming_content).decode().splitlines()
        assert lines == [every[position - 1] for position in positions], query
    assert "events.jsonl" in answer["Content-Disposition"]
    assert "export/?q=nightly" in client.get(f"{TABLE}/event/?q=nightly").content.decode()
    assert client.get(f"{TABLE}/event/export/?nothing=1").status_code == 404
    assert visitor("someone").get(f"{TABLE}/event/export/").status_code == 403
    assert client.post(f"{TABLE}/event/export/").status_code == 403


def test_an_export_has_as_many_lines_as_the_list_has_rows(told: Story, monkeypatch):
    monkeypatch.setattr(events, "COUNTED", 3)
    answer = auditor().get(f"{TABLE}/event/export/")
    positions = [json.loads(line)["position"] for line in answer.streaming_content]
    assert positions == [13, 14, 15]


def test_a_refusal_shows_what_the_gate_checked(told: Story):
    shown = text(auditor().get(f"{TABLE}/event/9/change/"))
    assert "dataset_present pass It is on the pool. –" in shown
    assert (
        "signed fail Generation 1's statement has no signature. template_unsigned"
        " Sign it: coppice tpl sign fbsd14-min" in shown
    )


def test_what_an_event_has_in_lists_is_shown_as_tables(told: Story):
    changed = PolicyChanged(
        node="jail1",
        changes=(
            SettingChange(name="COPPICE_GATE_EXEMPT", before=None, after="scratch-*"),
            SettingChange(name="COPPICE_NODE", before="old", after=None),
        ),
        settings=(),
    )
    revoked = KeyRevoked(
        key_id="0123456789abcdef",
        label="release",
        public_key="RWQ",
        reason="compromised",
        since=None,
        note="",
        templates=("web",),
        sandboxes=("build-9",),
    )
    differs = verified("fbsd14-min", result="differs")
    attached = EvidenceAttached(
        template="web",
        generation=1,
        reference="quay.io/x:1",
        manifest_digest=digest("web"),
        items=(
            Attached(
                kind="sbom",
                media_type="application/spdx+json",
                digest=digest("sbom"),
                subject=digest("web"),
                through="tag",
                size_bytes=1,
                kept=(),
                verified_by=(),
                detail="Too large.",
            ),
        ),
        missing=(),
    )
    found = reloaded(findings=(changed_tree("fbsd14-min", 2),))
    client = auditor()
    for event, told_so in (
        (changed, "Setting Before After COPPICE_GATE_EXEMPT – scratch-* COPPICE_NODE old –"),
        (revoked, "Kind Name template web live sandbox build-9"),
        (differs, f"./usr/bin/su changed sha256 {'ab' * 32} → {'cd' * 32} set-id"),
        (attached, f"sbom {digest('sbom')} nobody Too large."),
        (found, "tree_changed zroot/jails/coppice/fbsd14-min-g2 etc/motd differs."),
    ):
        (recorded,) = store.append(event, meta=meta())
        page = client.get(f"{TABLE}/event/{recorded.position}/change/")
        assert told_so in text(page), event.type
    # An event without lists has no table, and one that cannot be read neither.
    for position in (told.strange, store.size() + 1):
        store.append(launched(f"x-{position}", told.min2), meta=meta())
        assert b"cp-table" not in client.get(f"{TABLE}/event/{position}/change/").content


def test_an_event_that_this_program_cannot_read_is_shown_as_it_was_recorded(told: Story):
    client = auditor()
    shown = text(client.get(f"{TABLE}/event/{told.strange}/change/"))
    assert "unknown event type 'template-praised'" in shown
    assert '"praise": "<script>x</script>"' in shown
    assert "template-praised" in text(client.get(f"{TABLE}/event/"))
    assert "cannot read" in text(client.get(f"{TABLE}/template/lost/history/"))


@pytest.mark.parametrize("payload", ["not json", "[]", "null", '{"template": 5}', "[" * 100_000])
def test_no_payload_breaks_a_page(told: Story, payload: str):
    position = strange("imported", payload, "fbsd14-min")
    client = auditor()
    for page in (
        f"{TABLE}/event/{position}/change/",
        f"{TABLE}/event/",
        f"{TABLE}/template/fbsd14-min/change/",
        f"{TABLE}/template/fbsd14-min/history/",
        "/admin/",
    ):
        assert client.get(page).status_code == 200, page


def test_the_history_of_a_template_is_told_in_either_order(told: Story):
    client = auditor()
    newest = client.get(f"{TABLE}/template/fbsd14-min/history/")
    assert "newest first" in text(newest)
    assert [e.position for e in newest.context_data["timeline"].entries] == [13, 12, 9, 8, 4, 3]
    oldest = client.get(f"{TABLE}/template/fbsd14-min/history/?order=oldest")
    assert "oldest first" in text(oldest)
    assert [e.position for e in oldest.context_data["timeline"].entries] == [3, 4, 8, 9, 12, 13]
    later = client.get(f"{TABLE}/template/fbsd14-min/history/?order=oldest&from=9")
    assert [e.position for e in later.context_data["timeline"].entries] == [9, 12, 13]


def test_a_destroyed_template_keeps_its_history(told: Story):
    client = auditor()
    page = client.get(f"{TABLE}/template/gone/change/", follow=True)
    assert page.redirect_chain == [(f"{TABLE}/template/gone/history/", 302)]
    assert "no such template now" in text(page)
    assert "Destroyed gone with 1 dataset(s)" in text(page)
    assert client.get(f"{TABLE}/template/never/history/").status_code == 404
    assert client.get(f"{TABLE}/template/no'such%20name/change/", follow=True).status_code == 404


def test_a_long_log_is_counted_without_being_walked(told: Story, monkeypatch):
    client = auditor()
    assert client.get(f"{TABLE}/event/").context_data["cl"].result_count == store.size()
    monkeypatch.setattr(events, "COUNTED", 2)
    assert client.get(f"{TABLE}/event/?source=api").context_data["cl"].result_count == 2
    with CaptureQueriesContext(connection) as caught:
        client.get(f"{TABLE}/event/")
    assert not any("COUNT(" in one["sql"] and "event" in one["sql"] for one in caught)


def test_what_no_index_knows_is_looked_for_among_the_newest_events_only(told: Story, monkeypatch):
    monkeypatch.setattr(audit, "WINDOW", 8)
    found = auditor().get(f"{TABLE}/event/?q=nightly").context_data["cl"].result_list
    assert {row.position for row in found} == {8}
