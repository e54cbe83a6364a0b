"""Who gets in, what each may see, and that nobody changes anything of ours."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection
from django.test import Client, override_settings
from knox.models import AuthToken

from coppice_site.middleware import POLICY
from templates_app import store
from templates_app.models import Event, Finding, Generation, Lease, Sandbox, Signature, Template
from tests.house import TABLE, Story, auditor, superuser, visitor

LISTS = {
    f"{TABLE}/template/": Template,
    f"{TABLE}/event/": Event,
    f"{TABLE}/generation/": Generation,
    f"{TABLE}/signature/": Signature,
    f"{TABLE}/sandbox/": Sandbox,
    f"{TABLE}/finding/": Finding,
    f"{TABLE}/lease/": Lease,
}


def rooms() -> list[str]:
    """Each room, and one row in it."""
    rows = [f"{room}{model.objects.first().pk}/change/" for room, model in LISTS.items()]
    digest = Generation.objects.get(pk="fbsd14-min@1").manifest_digest
    history = f"{TABLE}/template/fbsd14-min/history/"
    pages = ["/admin/digests/", f"/admin/digests/{digest}/", "/admin/keys/", "/admin/keys/release/"]
    return [*LISTS, *rows, history, *pages]


@pytest.mark.parametrize("role", ["auditor", "operator", "signer"])
def test_staff_with_a_role_that_sees_the_log_sees_every_room(told: Story, role: str):
    client = visitor("someone", role)
    assert {client.get(room).status_code for room in rooms()} == {200}
    beside = client.get("/admin/").content.decode()
    assert all(f'href="{room}"' in beside for room in [*LISTS, "/admin/digests/", "/admin/keys/"])


def test_groups_are_called_roles_as_everywhere_else(told: Story):
    shown = superuser().get("/admin/auth/group/")
    assert shown.context_data["title"] == "Roles"
    assert re.search(r"<title>\s*Roles\b", shown.content.decode())


def test_a_stranger_is_led_to_the_login(told: Story):
    for room in [*rooms(), "/admin/"]:
        answer = Client().get(room)
        assert answer.status_code == 302, room
        assert answer.url.startswith("/admin/login/?next="), room


@pytest.mark.parametrize("roles", [(), ("gateway",)])
def test_staff_without_a_role_that_sees_the_log_sees_no_room(told: Story, roles: tuple[str, ...]):
    client = visitor("someone", *roles)
    for room in rooms():
        answer = client.get(room)
        assert answer.status_code == 403, room
        assert "Not for you" in answer.content.decode()
        assert "What happened" not in answer.content.decode()
    front = client.get("/admin/")
    assert front.status_code == 200
    assert front.context_data["figures"] is None
    assert "fbsd14-min" not in front.content.decode()


def test_a_role_without_the_staff_flag_does_not_get_in(told: Story):
    client = visitor("someone", "auditor", staff=False)
    assert {client.get(room).status_code for room in rooms()} == {302}


@pytest.mark.parametrize("who", [auditor, superuser])
def test_any_request_but_reading_is_refused_to_everybody(told: Story, who):
    client, before = who(), store.size()
    row = f"{TABLE}/event/3/"
    attempts = [
        *rooms(),
        *(f"{room}add/" for room in LISTS),
        *(f"{room}{model.objects.first().pk}/delete/" for room, model in LISTS.items()),
        f"{row}delete/",
    ]
    for address in attempts:
        data = {"action": "delete_selected", "_selected_action": ["3"], "post": "yes"}
        assert client.post(address, data).status_code == 403, address
        assert client.put(address).status_code == 403, address
        assert client.delete(address).status_code == 403, address
    assert client.get(f"{TABLE}/event/add/").status_code == 403
    assert client.get(f"{row}delete/").status_code == 403
    assert store.size() == before
    assert {model.objects.count() > 0 for model in LISTS.values()} == {True}


def test_a_permission_for_one_table_opens_no_room(told: Story):
    """Each room tells something of the others' tables: one key, or none."""
    client = visitor("someone")
    permission = Permission.objects.get(codename="view_sandbox")
    User.objects.get(username="someone").user_permissions.add(permission)
    assert {client.get(room).status_code for room in rooms()} == {403}


def test_a_token_of_the_api_opens_no_room_and_a_login_no_address_of_the_api(told: Story):
    client = auditor()
    user = User.objects.get(username="audrey")
    _, token = AuthToken.objects.create(user)
    bearer = {"Authorization": f"Bearer {token}"}
    assert Client().get("/sandboxes", headers=bearer).status_code == 200
    assert Client().get(f"{TABLE}/event/", headers=bearer).status_code == 302
    assert client.get("/sandboxes").status_code == 401


def test_a_user_who_is_ended_is_out_at_once(told: Story):
    client = auditor()
    assert client.get(f"{TABLE}/event/").status_code == 200
    User.objects.filter(username="audrey").update(is_active=False)
    assert client.get(f"{TABLE}/event/").status_code == 302


def test_every_answer_has_the_policy_also_those_that_refuse(told: Story):
    client = auditor()
    addresses = ["/admin/", "/admin/login/", "/admin/nothing/", "/admin/auth/user/", *rooms()]
    for address in addresses:
        for answer in (client.get(address), Client().get(address)):
            assert answer["Content-Security-Policy"] == POLICY, address
            assert "no-store" in answer["Cache-Control"] or "no-cache" in answer["Cache-Control"]
            assert answer["X-Frame-Options"] == "DENY"
    assert "Content-Security-Policy" not in client.get("/healthz")
    assert "unsafe-inline" not in POLICY
    assert "http" not in POLICY


def test_what_is_not_there_is_a_page_in_the_house_and_a_document_in_the_api(told: Story):
    client = auditor()
    page = client.get("/admin/nothing/")
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "Nothing here" in page.content.decode()
    for row in ("99999/change", "x/change", "3/history"):
        assert client.get(f"{TABLE}/event/{row}/").status_code == 404, row
    assert client.get("/admin").url == "/admin/"
    stranger = Client().get("/admin/nothing/")
    assert stranger.status_code == 302
    assert client.get("/nothing")["Content-Type"] == "application/problem+json"


def test_a_failure_is_a_page_that_says_nothing_but_the_request(told: Story, monkeypatch):
    monkeypatch.setattr("templates_app.services.audit.figures", lambda: 1 / 0)
    page = auditor().get("/admin/", headers={"X-Request-Id": "request-of-the-test"})
    assert (page.status_code, page["Content-Type"]) == (500, "text/html; charset=utf-8")
    body = page.content.decode()
    assert "request-of-the-test" in body
    assert "ZeroDivisionError" not in body
    assert "division" not in body


def test_odd_questions_are_no_failure(told: Story):
    client = auditor()
    for room in LISTS:
        for query in ("p=99999", "p=x", "o=99.-1.x", "q=%00", "nothing=1", "when=x", "all=", "e=1"):
            assert client.get(f"{room}?{query}").status_code in (200, 302), room + query
    for query in ("?p=99999", "?p=x", "?q=%00", "?q=" + "a" * 3000):
        assert client.get(f"/admin/digests/{query}").status_code == 200, query
    for name in ("fbsd14-min", "a" * 300, "%00", "..%2f..", "_00"):
        for query in ("", "?from=x", "?from=-1", "?from=99999999999999999999"):
            answer = client.get(f"{TABLE}/template/{name}/history/{query}")
            assert answer.status_code == (200 if name == "fbsd14-min" else 404), name + query


def test_the_tasks_of_the_queue_can_neither_be_deleted_nor_resubmitted(told: Story):
    assert [model for model in admin.site._registry if model._meta.app_label == "django_q"] == []
    assert superuser().get("/admin/django_q/success/").status_code == 404


def test_an_administrator_makes_an_auditor_who_then_logs_in(told: Story):
    client = superuser()
    password = "correct-horse-battery"
    form = {
        "username": "audrey",
        "usable_password": "true",
        "password1": password,
        "password2": password,
    }
    made = client.post("/admin/auth/user/add/", form)
    assert made.status_code == 302
    user = User.objects.get(username="audrey")
    fields = client.get(made.url).context_data["adminform"].form.initial
    change = {
        "username": "audrey",
        "is_active": "on",
        "is_staff": "on",
        "groups": [Group.objects.get(name="auditor").pk],
        "date_joined_0": f"{fields['date_joined']:%Y-%m-%d}",
        "date_joined_1": f"{fields['date_joined']:%H:%M:%S}",
    }
    assert client.post(made.url, change).status_code == 302
    hers = Client()
    assert hers.login(username="audrey", password=password)
    assert hers.get(f"{TABLE}/event/").status_code == 200
    assert hers.get("/admin/auth/user/").status_code == 403
    assert hers.get(f"/admin/auth/user/{user.pk}/change/").status_code == 403


def test_tokens_are_shown_by_their_hash_and_withdrawn_but_never_made_or_changed(told: Story):
    client = superuser()
    user = User.objects.get(username="root")
    kept, token = AuthToken.objects.create(user)
    row = f"/admin/knox/authtoken/{kept.pk}"
    for page in ("/admin/knox/authtoken/", f"{row}/change/"):
        body = client.get(page).content.decode()
        assert kept.digest[:16] in body
        assert token not in body
        assert kept.digest not in body.replace(kept.pk, "")
    assert client.get("/admin/knox/authtoken/add/").status_code == 403
    assert client.post(f"{row}/change/", {"expiry_0": "2050-01-01"}).status_code == 403
    assert client.post(f"{row}/delete/", {"post": "yes"}).status_code == 302
    assert not AuthToken.objects.exists()
    assert auditor().get("/admin/knox/authtoken/").status_code == 403


def test_a_form_from_another_site_is_refused(told: Story):
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/admin/login/", {"username": "root", "password": "x"})
    assert answer.status_code == 403


def test_the_log_is_read_only_although_the_room_were_open(told: Story):
    """The triggers beneath: a room that forgot itself could still do nothing."""
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM templates_app_event WHERE position = 3")


def test_without_trusted_keys_everything_is_unsigned(told: Story):
    with override_settings(COPPICE_TRUSTED_KEYS=None):
        found = auditor().get(f"{TABLE}/template/?signed=yes").context_data["cl"].result_count
    assert found == 0
