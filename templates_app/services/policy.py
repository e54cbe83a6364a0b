"""What this server is set to, held against what the log has of it: at its start, and later on.

Settings come from the environment, so they change at a start alone; the directory of trusted keys
can change at any time, and is looked at by whatever uses a key.
"""

from __future__ import annotations

import logging
import threading
import uuid
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error

from coppice_site.environment import VARIABLES
from templates_app import store
from templates_app.errors import CoppiceError
from templates_app.events import PolicyChanged, Recorded, Setting, SettingChange
from templates_app.services import common, keyring

logger = logging.getLogger("coppice.policy")

_KEY = "COPPICE_TRUSTED_KEYS/"  # and a file's name: its public key
_lock = threading.Lock()
_noticed: tuple[Setting, ...] | None = None  # what this process has last held against the log
_started_with: tuple[Setting, ...] = ()


def at_start() -> None:
    """Hold the settings against the log, and from now on the trusted keys too.

    A log that cannot be written stops no start: what reads must work, and the next launch or
    signature tries again.
    """
    global _noticed, _started_with
    _noticed, _started_with = (), _of_the_environment()
    look()


def look() -> None:
    """Record what has changed since the log's last word on it. Does nothing before a start."""
    global _noticed
    if _noticed is None:  # a command, or a test: whose environment is not a server's
        return
    now = _started_with + _of_the_directory()
    if now == _noticed:
        return
    with _lock:
        if now == _noticed:
            return
        try:
            record(now)
        except (CoppiceError, Error) as error:
            logger.error("what the server is set to could not be recorded: %s", error)
        else:
            _noticed = now


def current() -> tuple[Setting, ...]:
    """Every setting of the server that is no secret, and the trusted keys of the directory."""
    return _of_the_environment() + _of_the_directory()


def _of_the_environment() -> tuple[Setting, ...]:
    return tuple(
        Setting(name=one.name, value=_text(getattr(settings, one.name)))
        for one in VARIABLES
        if one.of == "server" and not one.secret
    )


def _of_the_directory() -> tuple[Setting, ...]:
    return tuple(
        Setting(name=f"{_KEY}{key.label}.pub", value=key.public_key.text)
        for key in keyring.in_directory()
    )


def record(now: tuple[Setting, ...]) -> Recorded | None:
    """The ``policy-changed`` event, or None where the log's last one says the same."""
    stream = f"policy:{settings.COPPICE_NODE}"
    last = store.last_in(stream)
    event = last.event if last is not None else None
    before = event.settings if isinstance(event, PolicyChanged) else ()
    changes = _changes(before, now)
    if not changes:
        return None
    changed = PolicyChanged(node=settings.COPPICE_NODE, changes=changes, settings=now)
    context = common.context(actor="server", source="server", request_id=uuid.uuid4().hex)
    version = last.version if last is not None else 0
    (recorded,) = store.append([changed], meta=context, expected={stream: version})
    return recorded


def _changes(before: tuple[Setting, ...], now: tuple[Setting, ...]) -> tuple[SettingChange, ...]:
    was, are = ({one.name: one.value for one in some} for some in (before, now))
    return tuple(
        SettingChange(name=name, before=was.get(name), after=are.get(name))
        for name in sorted({*was, *are})
        if was.get(name) != are.get(name)
    )


def _text(value: Any) -> str:
    """As it could be written in the environment."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case Path() | str() | int():
            return str(value)
        case tuple() | list():
            return ",".join(map(_text, value))
    return str(value)
