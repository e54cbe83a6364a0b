"""What the rooms show."""

from __future__ import annotations

import datetime
import json
import re
from html import unescape

import pytest
from django.contrib import admin
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from templates_app import projections, store
from templates_app.admin import events
from templates_app.models import Event, Generation, Lease, Sandbox, Signature, Template
from templates_app.services import audit
from tests.house import (
    LONG,
    REQUEST,
    SCRIPT,
    Story,
    auditor,
    digest,
    imported,
    launched,
    meta,
    refused,
    strange,
    superuser,
    visitor,
)

TABLE = "/admin/templates_app"
OURS = (Template, Event, Generation, Signature, Sandbox, Lease)


def text(response) -> str:
    """What a reader sees: no tags, one space between words."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def every_page(story: Story) -> list[str]:
    return [
        "/admin/",
        f"{TABLE}/template/",
        f"{TABLE}/template/fbsd14-min/change/",
        f"{TABLE}/template/house/change/",
        f"{TABLE}/template/hostile/change/",
        f"{TABLE}/template/lost/change/",
        f"{TABLE}/template/hostile/history/",
        f"{TABLE}/template/gone/history/",
        f"{TABLE}/event/",
        f"{TABLE}/generation/",
        f"{TABLE}/generation/hostile@1/change/",
        f"{TABLE}/generation/house@0/change/",
        f"{TABLE}/signature/",
        f"{TABLE}/signature/{story.signed.position}/change/",
        f"{TABLE}/sandbox/",
        f"{TABLE}/sandbox/build-7/change/",
        f"{TABLE}/lease/",
        f"{TABLE}/lease/fbsd14-min/change/",
        "/admin/digests/",
        f"/admin/digests/{story.hostile.digests.manifest}/",
        f"/admin/digests/{story.min2.statement_digest}/",
        *(f"{TABLE}/event/{position}/change/" for position in range(1, store.size() + 1)),
    ]


def test_an_auditor_reads_every_room(told_on_both: Story):
    client = auditor()
    failed = [page for page in every_page(told_on_both) if client.get(page).status_code != 200]
    assert failed == []


def test_the_front_page_has_four_figures_that_lead_to_what_they_count(told_on_both: Story):
    client = auditor()
    page = client.get("/admin/")
    shown = text(page)
    assert "3 blocked: unsigned" in shown
    assert "1 missing" in shown
    assert "An event of type template-praised" in shown
    assert "append-only All triggers are in place" in shown
    links = page.context_data["links"]
    for name, rows in {
        "templates": 4,
        "unsigned": 3,
        "missing": 1,
        "failed": 1,
        "refused": 1,
    }.items():
        assert client.get(links[name]).context_data["cl"].result_count == rows, name


def test_the_front_page_says_when_a_trigger_is_gone(told: Story):
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER coppice_event_delete")
    shown = text(auditor().get("/admin/"))
    assert "unguarded" in shown
    assert "coppice_event_delete" in shown


@pytest.mark.parametrize(
    ("mode", "word"), [("on", "blocked"), ("warn", "unsigned"), ("off", "unsigned")]
)
def test_an_unsigned_template_is_blocked_under_the_gate_in_a_word_and_a_colour(
    told: Story, mode: str, word: str
):
    colour = "danger" if mode == "on" else "warning"
    marked = f'<span class="cp-word cp-{colour}">{word}</span>'
    with override_settings(COPPICE_REQUIRE_SIGNED_TEMPLATES=mode):
        client = auditor()
        rows = client.get(f"{TABLE}/template/?q=hostile").content.decode()
        page = client.get(f"{TABLE}/template/hostile/change/").content.decode()
    assert marked in rows
    assert marked in page


def test_a_signed_template_is_unsigned_again_when_its_key_is_withdrawn(told: Story, settings):
    client = auditor()
    signed = '<span class="cp-word cp-success">signed</span>'
    assert signed in client.get(f"{TABLE}/template/?q=house").content.decode()
    (settings.COPPICE_TRUSTED_KEYS / "release.pub").unlink()
    assert signed not in client.get(f"{TABLE}/template/?q=house").content.decode()
    assert "not trusted" in text(client.get(f"{TABLE}/signature/"))
    assert client.get(f"{TABLE}/signature/?trusted=yes").context_data["cl"].result_count == 0


def test_the_page_of_a_template_shows_every_check_with_reason_and_next_step(told: Story):
    shown = text(auditor().get(f"{TABLE}/template/hostile/change/"))
    assert "would refuse The gate is on" in shown
    assert "signed fail Generation 1's statement has no signature." in shown
    assert "Sign it: coppice tpl sign hostile" in shown
    shown = text(visitor("audrey-2", "auditor").get(f"{TABLE}/template/house/change/"))
    assert "would launch" in shown
    assert "signature_valid pass" in shown


def test_the_page_of_a_template_says_all_that_was_recorded(told: Story):
    shown = text(auditor().get(f"{TABLE}/template/fbsd14-min/change/"))
    event = told.min2
    for fact in (
        *event.digests.all(),
        event.tree_digest,
        event.statement_digest,
        event.snapshot,
        event.origin.removesuffix("@base"),
        event.snapshot_guid,
        "etc/resolv.conf planted",
        "All programs are for freebsd/amd64.",
        "157.2M (164822016 bytes), 812 entries",
        "tag may move",
        "copy 2100 ms",
        '"_type": "https://in-toto.io/Statement/v1"',
        "11.4M of 45.8M",
        "build-8",
    ):
        assert fact in shown, fact


def test_a_pool_that_does_not_answer_is_said_and_the_rest_is_shown(told: Story, tmp_path):
    with override_settings(COPPICE_POOL=f"dir:{tmp_path / 'nowhere'}"):
        shown = text(auditor().get(f"{TABLE}/template/house/change/"))
    assert "no answer" in shown
    assert "Statement digest" in shown


QUESTIONS = {
    "signed=yes": {"house"},
    "signed=no": {"fbsd14-min", "hostile", "lost"},
    "blocked=yes": {"fbsd14-min", "hostile", "lost"},
    "missing=yes": {"lost"},
    "adopted=yes": {"house"},
    "adopted=no": {"fbsd14-min", "hostile", "lost"},
    "floating=yes": {"fbsd14-min", "hostile", "lost"},
    "findings=yes": {"hostile"},
    "findings=no": {"fbsd14-min", "house", "lost"},
    "q=team-with-a-long-name": {"hostile"},
    "q=fbsd14": {"fbsd14-min"},
    f"q={digest('index fbsd14-min 2')}": {"fbsd14-min"},
    f"q={digest('index fbsd14-min 2').removeprefix('sha256:')}": {"fbsd14-min"},
    f"q={digest('config hostile 1')}": {"hostile"},
    f"q={digest('index fbsd14-min 1')}": set(),  # an earlier generation's
}


def test_templates_are_found_by_questions_name_reference_and_digest(told_on_both: Story):
    client = auditor()
    for query, names in QUESTIONS.items():
        found = client.get(f"{TABLE}/template/?{query}").context_data["cl"].result_list
        assert {row.name for row in found} == names, query


def test_a_launch_is_not_refused_for_want_of_a_signature_while_the_gate_is_off(told: Story):
    with override_settings(COPPICE_REQUIRE_SIGNED_TEMPLATES="off"):
        found = auditor().get(f"{TABLE}/template/?blocked=yes").context_data["cl"].result_list
    assert {row.name for row in found} == {"lost"}


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


def test_a_digest_shows_where_it_came_from_and_what_became_of_it(told_on_both: Story):
    client, event = auditor(), told_on_both.min2
    for kind, asked in {
        "index": event.digests.index,
        "manifest": event.digests.manifest,
        "config": event.digests.config,
        "tree": event.tree_digest,
        "statement": event.statement_digest,
    }.items():
        page = client.get(f"/admin/digests/{asked}/")
        found = page.context_data["provenance"]
        assert found.kinds == (kind,), kind
        assert found.names == ("fbsd14-min",)
        assert [one.pk for one in found.generations] == ["fbsd14-min@2"]
        assert [one.position for one in found.imports] == [8]
        assert [one.position for one in found.refusals] == [9], kind
        assert [(one.sandbox, one.live) for one in found.launches] == [("build-8", True)]
        assert f"{kind} digest" in text(page)


def test_a_destroyed_sandbox_and_a_failed_import_are_part_of_provenance(told: Story):
    client = auditor()
    found = client.get(f"/admin/digests/{told.min1.tree_digest}/").context_data["provenance"]
    assert [(one.sandbox, one.live) for one in found.launches] == [("build-7", False)]
    broken = client.get(f"/admin/digests/{told.broken.digest}/").context_data["provenance"]
    assert [one.type for one in broken.imports] == ["import-failed"]
    assert (broken.names, broken.kinds, broken.generations) == (("broken",), ("manifest",), ())


def test_a_reused_sandbox_id_is_live_only_in_its_last_launch(told: Story):
    store.append(launched("build-7", told.min2), meta=meta("gateway-1"))
    client = auditor()
    first = client.get(f"/admin/digests/{told.min1.tree_digest}/").context_data["provenance"]
    again = client.get(f"/admin/digests/{told.min2.tree_digest}/").context_data["provenance"]
    assert [(one.sandbox, one.live) for one in first.launches] == [("build-7", False)]
    assert ("build-7", True) in [(one.sandbox, one.live) for one in again.launches]


def test_a_signature_is_part_of_the_provenance_of_the_tree_that_it_signs(told: Story):
    tree = Generation.objects.get(pk="house@0").tree_digest
    found = auditor().get(f"/admin/digests/{tree}/").context_data["provenance"]
    assert [one.key_label for one in found.signatures] == ["release"]
    assert found.names == ("house",)


def test_a_digest_is_pasted_as_it_comes(told: Story):
    client, event = auditor(), told.min2
    manifest = event.digests.manifest
    for pasted in (manifest, manifest.removeprefix("sha256:"), f"  {manifest.upper()} "):
        answer = client.get("/admin/digests/", {"q": pasted})
        assert answer.url == f"/admin/digests/{manifest}/"
    for odd in ("abc", "sha512:" + "0" * 64, SCRIPT, "sha256:"):
        answer = client.get("/admin/digests/", {"q": odd})
        assert answer.status_code == 200
        assert "is not a sha256 digest" in text(answer)
    unknown = client.get(f"/admin/digests/sha256:{'0' * 64}/")
    assert unknown.status_code == 404
    assert "is not known here" in text(unknown)
    assert client.get("/admin/digests/abc/").status_code == 404


def test_every_manifest_digest_is_listed_with_its_names(told: Story):
    store.append(imported("twin", image="fbsd14-min 2"), meta=meta())
    rows = dict(auditor().get("/admin/digests/").context_data["rows"])
    assert [one.pk for one in rows[told.min2.digests.manifest]] == ["fbsd14-min@2", "twin@1"]
    assert len(rows) == 5


def test_what_others_chose_is_shown_as_text(told_on_both: Story):
    """References, actors, findings, verdicts, subjects, payloads: all may hold markup."""
    client, shown = auditor(), 0
    for page in every_page(told_on_both):
        body = client.get(page).content.decode()
        assert "<script>alert" not in body, page
        assert "<script>x" not in body, page
        shown += body.count("&lt;script&gt;alert(")
    assert shown > 20
    for query in ("?q=" + SCRIPT, "?type=" + SCRIPT, "?when=" + SCRIPT):
        assert "<script>alert" not in client.get(f"{TABLE}/event/{query}").content.decode()
    assert LONG in text(client.get(f"{TABLE}/template/hostile/change/"))


def queries(client, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as caught:
        assert client.get(address).status_code == 200
    return len(caught)


#: Queries of each list: its rows, their count, the user, his session and permissions, the size of
#: the log, and what its page is about. A row more must not cost one.
PINNED = {
    f"{TABLE}/template/": 6,
    f"{TABLE}/event/": 6,
    f"{TABLE}/event/?q=nightly": 10,
    f"{TABLE}/generation/": 6,
    f"{TABLE}/signature/": 6,
    f"{TABLE}/sandbox/": 6,
    f"{TABLE}/lease/": 6,
    "/admin/digests/": 7,
    "/admin/": 14,
}


def test_a_list_asks_as_few_questions_for_many_rows_as_for_few(told: Story):
    client = auditor()
    client.get("/admin/")
    few = {address: queries(client, address) for address in PINNED}
    for number in range(60):
        event = imported(f"more-{number}")
        run = meta("nightly")
        store.append([event, launched(f"s-{number}", event), refused(event)], meta=run)
    many = {address: queries(client, address) for address in PINNED}
    assert many == few == PINNED


def test_a_list_says_how_many_only_where_something_narrowed_it(told: Story):
    client = auditor()
    assert "results (" not in text(client.get(f"{TABLE}/sandbox/"))
    assert "2 sandboxes" in text(client.get(f"{TABLE}/sandbox/"))
    assert "1 result ( Show all )" in text(client.get(f"{TABLE}/sandbox/?live=yes"))


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


def test_the_rooms_say_the_same_after_a_rebuild(told: Story):
    """What they show is folded from the log: nothing is kept elsewhere."""
    before = text(auditor().get(f"{TABLE}/generation/"))
    projections.rebuild(store.read(limit=told.strange - 1))  # it would refuse the strange one
    after = text(visitor("audrey-2", "auditor").get(f"{TABLE}/generation/"))
    assert before.split("Generations", 3)[3] == after.split("Generations", 3)[3]


def test_every_table_of_the_read_models_has_a_room(told: Story):
    assert {model for model in OURS if admin.site.is_registered(model)} == set(OURS)


def test_a_superuser_has_no_button_to_change_anything_of_ours(told: Story):
    client = superuser()
    for page in every_page(told):
        body = client.get(page).content.decode()
        assert "/add/" not in body.replace("/admin/auth/user/add/", ""), page
        assert "/delete/" not in body, page
        assert 'name="_save"' not in body, page
        assert 'name="action"' not in body, page
