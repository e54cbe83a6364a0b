"""Callers of the in-process API, each with the token of a role, on a directory pool."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from knox.models import AuthToken

from templates_app.services import common, reload
from templates_app.trust import signify


class Api:
    """``api.as_("operator").get("/templates")``: what a caller with that role's token is answered.

    An exception that no handler took comes back as the server's answer, not as an exception.
    """

    def __init__(self, place: Path) -> None:
        self.pool = place / "pool"
        self.keys = place / "keys"
        for made in (self.pool, self.keys, place / "state"):
            made.mkdir(mode=0o700)
        self.secret = signify.generate("release").secret
        self._tokens: dict[tuple[str, ...], str] = {}

    def token(self, *roles: str, days: float = 1) -> str:
        user, _ = User.objects.get_or_create(username="-".join(roles) or "nobody")
        user.groups.set(Group.objects.filter(name__in=roles))
        return str(AuthToken.objects.create(user, expiry=timedelta(days=days))[1])

    def as_(self, *roles: str) -> Client:
        if roles not in self._tokens:
            self._tokens[roles] = self.token(*roles)
        return self.bearing(self._tokens[roles])

    @staticmethod
    def bearing(token: str) -> Client:
        return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {token}"})

    @staticmethod
    def anonymous() -> Client:
        return Client(raise_request_exception=False)

    def hand_make(self, name: str, text: str = "by hand") -> None:
        place = self.pool / f"{name}-template@base"
        place.mkdir()
        (place / "motd").write_text(text)

    def adopt(self, *names: str) -> None:
        """Hand-made templates that a reload has found."""
        for name in names:
            self.hand_make(name)
        reload.reload(context=common.context(actor="tests", source="command", request_id="r" * 8))

    def trust(self) -> None:
        secret = signify.SecretKey.load(self.secret)
        (self.keys / "release.pub").write_bytes(secret.public_key.to_bytes())

    def signature(self, name: str) -> str:
        """Over the statement that is served."""
        text = self.as_("auditor").get(f"/templates/{name}/statement").content
        return signify.SecretKey.load(self.secret).sign(text)

    def sign(self, name: str) -> Any:
        body = {"signature": self.signature(name)}
        return self.as_("signer").post(
            f"/templates/{name}/signatures", body, content_type="application/json"
        )


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(path, body, content_type="application/json")
