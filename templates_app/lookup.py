"""Where in the log the events about a thing are: by their stream, and by the index of mentions.

An event is not mentioned under what its stream says (events/base.py): each row would cost every
append a page. So whoever looks for a thing looks at both.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import QuerySet

from templates_app.events import streams_about
from templates_app.models import Event, Mention


def events(kinds: Iterable[str], keys: Iterable[str]) -> QuerySet[Event]:
    """Events about a thing of one of these kinds and keys; in no order.

    The positions are a subquery of their own: an OR over both indexes would make PostgreSQL read
    the whole log.
    """
    kinds, keys = list(kinds), list(keys)
    streams = [stream for kind in kinds for key in keys for stream in streams_about(kind, key)]
    mentioned = Mention.objects.filter(kind__in=kinds, key__in=keys).values("position")
    told = Event.objects.order_by().filter(stream__in=streams).values("position")
    return Event.objects.order_by().filter(position__in=mentioned.union(told))
