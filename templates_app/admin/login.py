"""The form of the login: each that succeeds is recorded, and of those that fail not too many."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.forms import AuthenticationForm

from templates_app.services import access, common


class LoginForm(AuthenticationForm):  # type: ignore[misc] # unfold has no types
    def clean(self) -> Any:
        address = str(self.request.META.get("REMOTE_ADDR") or "")
        request_id = getattr(self.request, "request_id", "")
        try:
            cleaned = super().clean()
        except forms.ValidationError:
            typed = str(self.cleaned_data.get("username") or "")
            nobody = common.context(actor="nobody", source="admin", request_id=request_id)
            access.login_failed(typed=typed, address=address, context=nobody)
            raise
        user = self.get_user()
        if user is not None:  # without a name or a password nobody was asked for
            known = common.context(actor=user.get_username(), source="admin", request_id=request_id)
            access.logged_in(address=address, context=known)
        return cleaned
