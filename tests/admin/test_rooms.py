"""What the rooms show, and at what cost."""

from __future__ import annotations

import datetime
import io
import shutil
import tarfile

import pytest
from django.contrib import admin
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from templates_app import projections, store
from templates_app.errors import Unavailable
from templates_app.events import Destroyed
from templates_app.models import Event, Finding, Generation, Lease, Sandbox, Signature, Template
from templates_app.services import ledger, ledger_files, signing
from templates_app.trust.checkpoints import Checkpoint
from tests import house
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

OURS = (Template, Event, Generation, Signature, Sandbox, Finding, Lease)


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
        f"{TABLE}/finding/",
        *(f"{TABLE}/finding/{row.pk}/change/" for row in Finding.objects.all()),
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


def test_the_front_page_has_figures_that_lead_to_what_they_count(told_on_both: Story):
    client = auditor()
    page = client.get("/admin/")
    shown = text(page)
    assert "3 blocked: unsigned" in shown
    assert "1 missing" in shown
    assert "1 stops launches" in shown
    assert "An event of type template-praised" in shown
    assert "append-only All triggers are in place" in shown
    links = page.context_data["links"]
    for name, rows in {
        "templates": 4,
        "unsigned": 3,
        "missing": 1,
        "findings": 2,
        "failed": 1,
        "refused": 1,
    }.items():
        assert client.get(links[name]).context_data["cl"].result_count == rows, name


@pytest.mark.parametrize(
    ("room", "says"),
    [
        ("template", "No template was imported yet. coppice tpl import-oci NAME REFERENCE"),
        ("event", "The log is empty: nothing has happened yet."),
        ("generation", "Nothing was imported or adopted yet."),
        ("finding", "No look at the pool or into files has found anything."),
        ("signature", "Nobody has signed a template yet. coppice tpl sign NAME"),
        ("sandbox", "Nothing was launched yet."),
        ("lease", "No import runs now."),
    ],
)
def test_an_empty_room_says_what_that_means(room: str, says: str, sqlite: str):
    client = auditor()
    assert says in text(client.get(f"{TABLE}/{room}/"))
    narrowed = text(client.get(f"{TABLE}/{room}/?q=nothing"))
    assert "Nothing here fits the search and the filters. Show all" in narrowed
    assert says not in narrowed
    assert "Create a new item" not in narrowed


def test_there_is_no_template_that_could_be_signed(sqlite: str):
    shown = text(auditor().get("/admin/"))
    assert "none was imported yet" in shown and "all signed" not in shown
    assert "No API token was made yet." in text(superuser().get("/admin/knox/authtoken/"))


def test_the_front_page_says_how_far_the_log_is_signed(told: Story, settings, monkeypatch):
    client = auditor()
    shutil.rmtree(settings.COPPICE_STATE_DIR / "log/checkpoints", ignore_errors=True)
    assert "none yet" in text(client.get("/admin/"))
    # Not of this log, in which an event was forged: who signs looks at that.
    signed = Checkpoint("coppice/test", store.size() - 1, bytes(32))
    ledger_files.keep(signed, ledger_files.secret_key())
    shown = text(client.get("/admin/"))
    assert f"signed The first {signed.size} events" in shown and "1 since" in shown
    monkeypatch.setattr(ledger, "LATE", datetime.timedelta())
    shown = text(client.get("/admin/"))
    assert "late The first" in shown

    def unavailable(**_):
        raise Unavailable("The log's key and checkpoints cannot be read or written.")

    monkeypatch.setattr(ledger, "standing", unavailable)
    assert "unknown The log's key and checkpoints cannot be read" in text(client.get("/admin/"))


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


def test_a_finding_says_what_it_touches_what_it_stops_and_what_to_do(told: Story):
    client = auditor()
    page = text(client.get(f"{TABLE}/template/hostile/change/"))
    assert "Open findings" in page
    assert "no_blocking_finding fail tree_changed" in page
    assert "coppice tpl import-oci hostile REF --force" in page
    (stopping,) = Finding.objects.filter(code="tree_changed")
    shown = text(client.get(f"{TABLE}/finding/{stopping.pk}/change/"))
    assert "tree_changed stops launches" in shown
    assert "The files of @base are not those" in shown
    assert "hostile generation 1" in shown
    for question, rows in {"?open=yes": 2, "?open=no": 0, "?stops=yes": 1, "?q=orphan": 1}.items():
        found = client.get(f"{TABLE}/finding/{question}").context_data["cl"].result_count
        assert found == rows, question


def test_a_generation_is_called_what_became_of_it(told: Story):
    store.append(house.retired("fbsd14-min", 1), meta=meta())
    gone = Destroyed(template="hostile", generation=1, datasets=(), manifest_digest=None, kept=(1,))
    store.append(gone, meta=meta())
    client = auditor()
    for key, state in {
        "fbsd14-min@1": "retired",
        "fbsd14-min@2": "current",
        "gone@1": "destroyed",
        "hostile@1": "kept",
    }.items():
        page = text(client.get(f"{TABLE}/generation/{key}/change/"))
        assert f"generation {key[-1]} {state}" in page, key
    assert "It stays until nothing is cloned from it" in text(
        client.get(f"{TABLE}/generation/hostile@1/change/")
    )
    kept = client.get(f"{TABLE}/generation/?kept=yes").context_data["cl"].result_list
    assert [row.pk for row in kept] == ["hostile@1"]
    assert "1 retired" in text(client.get(f"{TABLE}/template/fbsd14-min/change/"))


def test_a_signed_template_is_blocked_by_a_finding_while_the_gate_is_on(told: Story, settings):
    client = auditor()
    reloaded = house.reloaded(findings=(house.changed_tree("house", 0),))
    store.append(reloaded, meta=meta())
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    rows = client.get(f"{TABLE}/template/?blocked=yes&q=house").content.decode()
    assert '<span class="cp-word cp-danger">blocked</span>' in rows
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    rows = client.get(f"{TABLE}/template/?q=house").content.decode()
    assert '<span class="cp-word cp-success">signed</span>' in rows


def test_a_signed_template_is_unsigned_again_when_its_key_is_withdrawn(told: Story, settings):
    client = auditor()
    signed = '<span class="cp-word cp-success">signed</span>'
    assert signed in client.get(f"{TABLE}/template/?q=house").content.decode()
    (settings.COPPICE_TRUSTED_KEYS / "release.pub").unlink()
    assert signed not in client.get(f"{TABLE}/template/?q=house").content.decode()
    assert "does not count" in text(client.get(f"{TABLE}/signature/"))
    assert client.get(f"{TABLE}/signature/?trusted=yes").context_data["cl"].result_count == 0


def test_a_withdrawn_signature_is_called_so_wherever_it_is_shown(told: Story):
    client = auditor()
    assert "counts" in text(client.get(f"{TABLE}/signature/"))
    signing.withdraw(name="house", key="release", note="By mistake.", context=house.meta("sigrid"))
    position = Signature.objects.get().position
    for page in (
        f"{TABLE}/signature/",
        f"{TABLE}/signature/{position}/change/",
        f"{TABLE}/template/house/change/",
        "/admin/keys/release/",
    ):
        assert "withdrawn" in text(client.get(page)).lower(), page
    assert "By mistake." in text(client.get(f"{TABLE}/signature/{position}/change/"))


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
    f"{TABLE}/template/": 7,
    f"{TABLE}/event/": 5,
    f"{TABLE}/event/?q=nightly": 8,
    f"{TABLE}/generation/": 6,
    f"{TABLE}/signature/": 7,
    f"{TABLE}/sandbox/": 6,
    f"{TABLE}/lease/": 6,
    "/admin/digests/": 7,
    f"{TABLE}/finding/": 6,
    "/admin/": 15,
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


def test_the_evidence_about_a_template_is_taken_away(told: Story):
    client = auditor()
    page = client.get(f"{TABLE}/template/house/change/").content.decode()
    address = f"{TABLE}/template/house/evidence/"
    assert f'href="{address}"' in page
    answer = client.get(address)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as found:
        assert "house.evidence/statement.json" in found.getnames()
    gone = client.get(f"{TABLE}/template/no-such/evidence/")
    assert gone.status_code == 404
    assert "There is no template no-such." in gone.content.decode()
    assert client.post(address).status_code == 403
    assert visitor("someone", "gateway").get(address).status_code == 403


def test_a_template_says_when_its_files_were_verified_last(told: Story):
    client = auditor()
    page = f"{TABLE}/template/fbsd14-min/change/"
    assert "not verified Nobody has compared" in text(client.get(page))
    for number, result in ((2, "matches"), (1, "differs")):
        store.append([house.verified("fbsd14-min", number, result=result)], meta=meta())
    shown = text(client.get(page))
    assert "matches Verified fbsd14-min generation 2: 812 entries are as they were" in shown
    assert "its files differ" in shown.split("What happened last")[1]
    store.append([house.verified("fbsd14-min", 2, result="differs")], meta=meta())
    assert "differs Verified fbsd14-min generation 2: its files differ" in text(client.get(page))
