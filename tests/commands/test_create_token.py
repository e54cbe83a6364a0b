"""`manage.py create_token`: a token for a person or a program, in a role."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from knox.models import AuthToken


def status(token: str) -> int:
    return Client(headers={"Authorization": f"Bearer {token}"}).get("/templates").status_code


def test_it_prints_the_token_alone_on_stdout_and_it_works(shop):
    made = shop.run("create_token", "alice", "--role", "auditor")
    assert (made.status, made.out.count("\n")) == (0, 1)
    assert "alice (auditor); expires " in made.err
    assert made.out.strip() not in made.err
    assert status(made.out.strip()) == 200
    user = User.objects.get(username="alice")
    assert not user.has_usable_password() and not user.is_staff and not user.is_superuser


def test_only_a_hash_of_it_is_kept(shop):
    token = shop.run("create_token", "alice", "--role", "auditor").out.strip()
    (kept,) = AuthToken.objects.values_list("digest", "token_key")
    assert token not in kept
    assert len(kept[1]) < len(token) / 2


def test_as_json_it_says_who_what_and_until_when(shop):
    made = json.loads(
        shop.run(
            "create_token", "ops", "--role", "signer", "--role", "operator", "--days", "7", "--json"
        ).out
    )
    assert (made["user"], made["roles"]) == ("ops", ["operator", "signer"])
    assert status(made["token"]) == 200
    left = parse_datetime(made["expires"]) - timezone.now()
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)


def test_a_user_gets_more_tokens_and_more_roles(shop):
    first = shop.run("create_token", "ops", "--role", "auditor").out.strip()
    second = json.loads(shop.run("create_token", "ops", "--role", "gateway", "--json").out)
    third = json.loads(shop.run("create_token", "ops", "--json").out)
    assert second["roles"] == third["roles"] == ["auditor", "gateway"]
    assert status(first) == status(second["token"]) == status(third["token"]) == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "give --role"),
        (["nobody", "--role", "auditor", "--days", "0"], "--days must be"),
        (["nobody", "--role", "auditor", "--days", "3651"], "--days must be"),
        (["nobody", "--role", "king"], "invalid choice"),
        (["nobody", "--role", "auditor", "--days", "x"], "invalid int"),
        ([], "required"),
    ],
)
def test_bad_usage_makes_nothing(shop, words, said):
    done = shop.run("create_token", *words)
    assert said in done.err and done.out == ""
    assert done.status != 0
    assert not User.objects.exists() and not AuthToken.objects.exists()
