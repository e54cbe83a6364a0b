"""Users, roles and API tokens: the one part of the house where an administrator changes things."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from templates_app.admin.rooms import cell, moment

for model in (User, Group, AuthToken):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(User)
class UserRoom(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    actions = None
    list_display = ("username", "roles", "is_staff", "is_active", "is_superuser", "seen")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")
    list_fullwidth = True

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    @cell("roles")
    def roles(self, row: User) -> str:
        return ", ".join(sorted(group.name for group in row.groups.all())) or "–"

    @cell("last login", ordering="last_login")
    def seen(self, row: User) -> str:
        return moment(row.last_login)


@admin.register(Group)
class GroupRoom(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    """Django's groups are called what they are used for here."""

    actions = None

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": "Roles", "subtitle": None, **(extra_context or {})}
        return super().changelist_view(request, context)


@admin.register(AuthToken)
class TokenRoom(ModelAdmin):  # type: ignore[misc]
    """Only a token's hash is kept. Tokens are made by create_token, and withdrawn by deleting."""

    actions = None
    empty = "No API token was made yet."
    empty_next = "manage.py create_token USER --role ROLE"
    list_display = ("short", "user", "made", "expires")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    search_help_text = "User"
    fields = ("user", "made", "expires", "short")
    readonly_fields = ("user", "made", "expires", "short")
    ordering = ("-created",)
    list_fullwidth = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @cell("hash of the token")
    def short(self, row: Any) -> str:
        return f"{row.digest[:16]}…"

    @cell("made", ordering="created")
    def made(self, row: Any) -> str:
        return moment(row.created)

    @cell("expires", ordering="expiry")
    def expires(self, row: Any) -> str:
        return moment(row.expiry) if row.expiry else "never"
