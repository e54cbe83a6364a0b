"""Dataclasses <-> the JSON of the log: the one codec, for events and all that they hold."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
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
    kind = type(value)
    if kind is str or value is None or kind is bool:  # most are
        return value
    if kind is tuple or isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise PayloadInvalid(f"{value} is beyond 2^53 - 1: write it as text")
        return value
    if isinstance(value, dict):
        bad = [key for key in value if not isinstance(key, str) or not _KEY.fullmatch(key)]
        if bad:
            raise PayloadInvalid(f"{bad[0]!r} is not an ASCII key")
        return {key: _plain(item) for key, item in value.items()}
    raise PayloadInvalid(f"{kind.__name__} has no place in an event")


def encode(value: Any) -> dict[str, Json]:
    """A dataclass as JSON with camelCase keys. PayloadInvalid for what JSON or we do not take."""
    cls = type(value)
    write = _WRITERS.get(cls) or _WRITERS.setdefault(cls, _writer(cls))
    written: dict[str, Json] = write(value)
    return written


def text(value: Any) -> str:
    """The RFC 8785 form of what ``encode`` gives, in one step: PayloadInvalid as there.

    With what events may hold (ASCII keys, no floats, integers below 2^53), sorting keys by code
    point and the standard library's escapes are RFC 8785. Also PayloadInvalid for text that is not
    Unicode.
    """
    written = _text(value)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise PayloadInvalid("a lone surrogate is not text") from None
    return written


def _text(value: Any) -> str:
    cls = type(value)
    if (write := _TEXTS.get(cls)) is not None:
        return write(value)
    if dataclasses.is_dataclass(cls):
        return _TEXTS.setdefault(cls, _text_writer(cls))(value)
    return _JSON.encode(_plain(value))


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
    return reader(cls)(data)


def reader(cls: type) -> Callable[[Any], Any]:
    """``decode`` for this class, to be called by the thousand."""
    return _READERS.get(cls) or _READERS.setdefault(cls, _reader(cls))


def _decode(cls: type, data: Mapping[str, Json]) -> Any:
    """The same, key by key: for what lacks an optional key, and to say what is wrong."""
    if not isinstance(data, Mapping):
        raise PayloadInvalid(f"expected an object, found {type(data).__name__}")
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


# --- fast ways, written as Python source and compiled once per class -----------------------------
#
# A log is read far more often than it is written, and a frozen dataclass's own __init__ takes a
# third of the time of reading an event: it sets each field through object.__setattr__. So fields
# are set on an instance of a twin, which has the same slots and is not frozen, and the instance is
# then declared to be of the class. Python allows that for classes of one layout only.

_READERS: dict[type, Callable[[Any], Any]] = {}
_WRITERS: dict[type, Callable[[Any], Any]] = {}
_TEXTS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring,
    bool: lambda value: "true" if value else "false",
    int: lambda value: str(_plain(value)),
    type(None): lambda _: "null",
    tuple: lambda value: f"[{','.join([_text(item) for item in value])}]",
}
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_SCALARS = (str, int, bool)


def assembler(cls: type) -> Callable[..., Any]:
    """A function of all fields' values, in order, that makes what ``cls(...)`` would make."""
    names = [f.name for f in dataclasses.fields(cls)]
    source = [f"def assemble({', '.join(names)}):", "  o = new(twin)"]
    source += [f"  o.{name} = {name}" for name in names]
    return _compiled(source, cls, {})


def _writer(cls: type) -> Callable[[Any], Any]:
    """``encode`` for this class. Most fields are text, which needs no look."""
    pairs = [
        f"{key!r}: v if type(v := o.{name}) is str else plain(v)"
        for key, (name, _, _) in _shape(cls).keys.items()
    ]
    room: dict[str, Any] = {"plain": _plain}
    exec(f"def write(o): return {{{', '.join(pairs)}}}", room)  # noqa: S102
    made: Callable[[Any], Any] = room["write"]
    return made


def _text_writer(cls: type) -> Callable[[Any], str]:
    """``text`` for this class: its keys are sorted once."""
    room: dict[str, Any] = {"other": _text, "quoted": encode_basestring}
    pairs = [
        f'"{key}":{{quoted(v) if type(v := o.{name}) is str else other(v)}}'
        for key, (name, _, _) in sorted(_shape(cls).keys.items())
    ]
    exec("def write(o): return f'''{{" + ",".join(pairs) + "}}'''", room)  # noqa: S102
    made: Callable[[Any], str] = room["write"]
    return made


def _reader(cls: type) -> Callable[[Any], Any]:
    """``decode`` for this class: at once where every key is there and has the right type."""
    slow = functools.partial(_decode, cls)
    known: dict[str, Any] = {"value": _value, "slow": slow}
    source = ["def assemble(data):", "  o = new(twin)", "  try:"]
    keys = _shape(cls).keys
    for number, (key, (name, hint, _)) in enumerate(keys.items()):
        optional = type(None) in typing.get_args(hint)
        if optional:
            (hint,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        value, test = "v", ""
        known[f"t{number}"] = hint
        if hint in _SCALARS:
            test = f"type(v) is not {hint.__name__}"
        elif typing.get_origin(hint) is tuple:
            inner = known[f"t{number}"] = typing.get_args(hint)[0]
            # An item that is no object gets its complaint from _value.
            one = f"value(t{number}, i)"
            if dataclasses.is_dataclass(inner):
                known[f"r{number}"] = reader(typing.cast(type, inner))
                one = f"r{number}(i) if type(i) is dict else {one}"
            value, test = f"tuple([{one} for i in v]) if v else ()", "type(v) is not list"
        elif typing.get_origin(hint) is dict:
            value, test = "dict(v)", "type(v) is not dict"
        elif dataclasses.is_dataclass(hint):
            known[f"r{number}"] = reader(typing.cast(type, hint))
            value, test = f"r{number}(v)", "type(v) is not dict"
        else:
            return slow
        if optional:
            value, test = f"None if v is None else ({value})", f"v is not None and {test}"
        source += [f"    v = data[{key!r}]", f"    if {test}: return slow(data)"]
        source.append(f"    o.{name} = {value}")
    source += ["  except (KeyError, TypeError):", "    return slow(data)"]
    source += [f"  if len(data) != {len(keys)}:", "    return slow(data)"]
    return _compiled(source, cls, known)


def _compiled(source: list[str], cls: type, known: dict[str, Any]) -> Callable[..., Any]:
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} wants to be made by itself")
    slots = {"__slots__": vars(cls)["__slots__"]} if "__slots__" in vars(cls) else {}
    twin = type(cls.__name__, cls.__bases__, slots)
    room = {**known, "new": object.__new__, "twin": twin, "cls": cls}
    exec("\n".join([*source, "  o.__class__ = cls", "  return o"]), room)  # noqa: S102
    made: Callable[..., Any] = room["assemble"]
    return made
