"""Filters of the lists; most are questions that are answered yes or no."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import Q, QuerySet
from django.http import HttpRequest


class Choice(SimpleListFilter):
    """A filter whose title is shown as it is, not as "By …"."""

    template = "coppice/question.html"
    horizontal = False


class Question(Choice):
    """Rows for which ``yes`` holds, or those for which it does not."""

    yes: Q = Q()
    horizontal = True

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.filter(self.yes)
            case "no":
                return queryset.exclude(self.yes)
        return queryset
