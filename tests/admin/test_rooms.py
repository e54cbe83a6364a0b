"""What the rooms show, and at what cost."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from templates_app import projections, store
from templates_app.models import Event, Generation, Lease, Sandbox, Signature, Template
from tests.house import (
    LONG,
    SCRIPT,
    TABLE,
    Story,
    auditor,
    digest,
    imported,
    launched,
    meta,
    refused,
    superuser,
    text,
    visitor,
)

OURS = (Template, Event, Generation, Signature, Sandbox, Lease)


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
