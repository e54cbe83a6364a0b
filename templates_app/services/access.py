"""Who came in, who did not, and what was taken away: for the log."""

from __future__ import annotations

import datetime
import logging
import threading

from django.contrib.auth import get_user_model
from django.db import Error
from django.utils import timezone

from templates_app import store
from templates_app.errors import CoppiceError
from templates_app.events import Exported, LoggedIn, LoginFailed, Meta
from templates_app.models import Event
from templates_app.services import audit

logger = logging.getLogger("coppice.access")

#: Failed logins that get an event: so many in such a time, whoever tries. An attacker makes as many
#: as he likes, and what is appended stays for ever.
LIMITS = ((10, datetime.timedelta(minutes=1)), (60, datetime.timedelta(hours=1)))
_MOST_QUESTION = 500  # characters

_lock = threading.Lock()
_unrecorded = 0


def logged_in(*, address: str, context: Meta) -> None:
    store.append([LoggedIn(user=context.actor, address=address[:64])], meta=context)


def login_failed(*, typed: str, address: str, context: Meta) -> None:
    """Record it within LIMITS, else count it for the next that is. Whatever happens, it failed."""
    global _unrecorded
    try:
        with _lock:
            if _too_many(timezone.now()):
                _unrecorded += 1
                return
            known = get_user_model().objects.filter(username=typed[:150]).exists()
            event = LoginFailed(
                user=typed if known else None, address=address[:64], unrecorded=_unrecorded
            )
            store.append([event], meta=context)
            _unrecorded = 0
    except (CoppiceError, Error) as error:
        logger.error("a failed login could not be recorded: %s", error)


def _too_many(now: datetime.datetime) -> bool:
    newest = Event.objects.filter(audit.of_type(LoginFailed.type)).order_by("-position")
    times = list(newest.values_list("recorded_at", flat=True)[: max(most for most, _ in LIMITS)])
    return any(len(times) >= most and times[most - 1] > now - span for most, span in LIMITS)


def exported(
    *, what: str, first: int, last: int, events: int, question: str, context: Meta
) -> bool:
    """Record that these events are written out; whether that could be done.

    An export of nothing but exports leaves none: else one that runs every minute would export its
    own traces for ever. Where the log cannot be written, the export goes on: it may be the last.
    """
    try:
        news = Event.objects.filter(position__range=(first, last)).exclude(type=Exported.type)
        if events and news.exists():
            event = Exported(
                what=what, events=events, first=first, last=last, question=question[:_MOST_QUESTION]
            )
            store.append([event], meta=context)
    except (CoppiceError, Error) as error:
        logger.error("an export could not be recorded: %s", error)
        return False
    return True
