"""Make an API token for a person or a program, in one of the four roles."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import CommandError
from django.db import transaction
from knox.models import AuthToken

from templates_app.management.base import Command as Base
from templates_app.roles import ROLES


class Command(Base):
    help = "Make an API token. The token is printed once, on stdout; only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="made if it is not there, without a password")
        parser.add_argument(
            "--role",
            action="append",
            choices=sorted(ROLES),
            default=[],
            help="role(s) that the user gets; needed for a new user",
        )
        parser.add_argument("--days", type=int, default=90, help="days until it expires (90)")
        parser.add_argument("--json", action="store_true", help="print user, token, expiry as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["days"] <= 3650:
            raise CommandError("--days must be from 1 to 3650.", returncode=2)
        with transaction.atomic():
            user, made = User.objects.get_or_create(username=options["user"])
            if made:
                if not options["role"]:
                    raise CommandError(
                        f"No user {options['user']}: give --role to make one.",
                        returncode=2,
                    )
                user.set_unusable_password()
                user.save()
            user.groups.add(*[Group.objects.get(name=role) for role in options["role"]])
            instance, token = AuthToken.objects.create(user, expiry=timedelta(days=options["days"]))
        roles = sorted(user.groups.values_list("name", flat=True))
        if options["json"]:
            shown = {"user": user.username, "roles": roles, "token": token}
            shown["expires"] = instance.expiry.isoformat()
            self.stdout.write(json.dumps(shown))
        else:
            self.stdout.write(token)
            self.say(f"{user.username} ({', '.join(roles)}); expires {instance.expiry:%Y-%m-%d}.")
