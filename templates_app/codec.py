"""Dataclasses <-> the JSON of the log: the one codec, for events and all that they hold."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_INTEGER = 2**53 - 1  # I-JSON, RFC 7493 section 2.2: what every JSON reader gets right

Json = Any  # str | int | bool | None | list[Json] | dict[str, Json]


class PayloadInvalid(ValueError):
    """The payload cannot be written as, or read from, the event's JSON form."""


def camel(name: str) -> str:
    """``size_bytes`` -> ``sizeBytes``: the one spelling rule of the wire and the log."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


_KEY = re.compile(r"[!-~]{1,128}")


def _plain(value: Any) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise PayloadInvalid(f"{value} is beyond 2^53 - 1: write it as text")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        bad = [key for key in value if not isinstance(key, str) or not _KEY.fullmatch(key)]
        if bad:
            raise PayloadInvalid(f"{bad[0]!r} is not an ASCII key")
        return {key: _plain(item) for key, item in value.items()}
    raise PayloadInvalid(f"{type(value).__name__} has no place in an event")


def encode(value: Any) -> dict[str, Json]:
    """A dataclass as JSON with camelCase keys. PayloadInvalid for what JSON or we do not take."""
    return {camel(f.name): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


@dataclass(frozen=True, slots=True)
class _Shape:
    """A dataclass's fields with their resolved types: looked up once, not at each event."""

    keys: dict[str, tuple[str, Any, bool]] = field(default_factory=dict)


_SHAPES: dict[type, _Shape] = {}


def _shape(cls: type) -> _Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        hints = typing.get_type_hints(cls)
        shape = _Shape(
            {
                camel(f.name): (f.name, hints[f.name], f.default is dataclasses.MISSING)
                for f in dataclasses.fields(cls)
            }
        )
        _SHAPES[cls] = shape
    return shape


def decode(cls: type, data: Mapping[str, Json]) -> Any:
    """The dataclass that ``encode`` gave this JSON of. PayloadInvalid for anything else."""
    keys = _shape(cls).keys
    unknown = data.keys() - keys.keys()
    missing = {key for key, (_, _, required) in keys.items() if required} - data.keys()
    if unknown or missing:
        raise PayloadInvalid(
            f"{cls.__name__}: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
        )
    return cls(**{keys[key][0]: _value(keys[key][1], item) for key, item in data.items()})


def _value(hint: Any, item: Json) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if item is None:
            return None
        (hint,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _value(hint, item)
    if origin is tuple:
        if not isinstance(item, list):
            raise PayloadInvalid(f"expected a list, found {type(item).__name__}")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, one) for one in item)
    if origin is dict:
        if not isinstance(item, dict):
            raise PayloadInvalid(f"expected an object, found {type(item).__name__}")
        return dict(item)
    if dataclasses.is_dataclass(hint):
        if not isinstance(item, dict):
            raise PayloadInvalid(f"expected an object, found {type(item).__name__}")
        return decode(typing.cast(type, hint), item)
    if type(item) is not hint:
        raise PayloadInvalid(f"expected {hint.__name__}, found {type(item).__name__}")
    return item
