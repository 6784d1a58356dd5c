"""JSON documents in events: attributes, events and links of spans, bodies of log records (docs/adr/0022).

An event carries each as JSON text in its canonical form: UTF-8 without white space, the keys of objects sorted by code point,
integers of 64 bits, all other numbers as IEEE 754 doubles in the shortest form that reads back (I-JSON, RFC 7493). Numbers that
JSON lacks are the texts NaN, Infinity and -Infinity, and bytes are base64. What Postgres' jsonb or other readers could not hold
is refused: numbers beyond the range of doubles, NUL, lone surrogates, keys that occur twice, more than MAX_DEPTH levels.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson

from spanfold.language.errors import InvalidInput

Shape = Literal["object", "span_events", "span_links", "value"]
"""What a document is: an object, a span's events or links, or any JSON value."""

MAX_DEPTH: Final = 64
"""Levels of arrays and objects within each other."""

_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_UINT64: Final = range(-(1 << 63), 1 << 64)
_NUL: Final = b"\\u0000"

_EMPTY: Final[Mapping[tuple[Shape, type], str]] = {
    ("object", dict): "{}",
    ("span_events", tuple): "[]",
    ("span_links", tuple): "[]",
}
"""What most events have, by shape and type."""

_ENTRIES: Final[Mapping[str, Mapping[str, type]]] = {
    "span_events": {"name": str, "time": int, "attributes": dict},
    "span_links": {"trace_id": str, "span_id": str, "attributes": dict},
}
"""The members of the objects in a list."""


def canonical(value: Any, shape: Shape, where: str) -> str:
    """The canonical text of a value. InvalidInput names the place of what can't be a document."""
    if (empty := _EMPTY.get((shape, type(value)))) and not value:
        return empty
    try:
        dumped = orjson.dumps(value, _plain, _OPTIONS)
        if b"null" in dumped:
            dumped = orjson.dumps(finite(value), _plain, _OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(_why_unwritable(value, where, 1) or f"{where}: {error}") from error
    is_object = shape == "object" and isinstance(value, Mapping) and _is_plain(dumped)
    if not is_object and (fault := _fault(orjson.loads(dumped), dumped, shape)) is not None:
        raise InvalidInput(f"{where}: {fault}")
    return dumped.decode()


def canonical_bytes(text: str, shape: Shape) -> bytes:
    """The canonical form of a document that somebody wrote, in UTF-8. ValueError says why it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not _is_plain(raw := text.encode()) and _depth_exceeds(value):
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    dumped = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if (fault := _fault(value, dumped, shape)) is not None:
        raise ValueError(fault)
    if dumped != raw and (key := _key_that_occurs_twice(text)) is not None:
        raise ValueError(f"the key {key!r} occurs twice in an object")
    return dumped


def parsed(text: str) -> Any:
    """The value of a document."""
    return orjson.loads(text)


def parsed_or_text(text: str) -> Any:
    """The value of a document that somebody wrote; the text itself when it is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _plain(value: Any) -> Any:
    """What orjson does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a value of type {type(value).__name__} is none of JSON's")


def finite(value: Any) -> Any:
    """The value with texts for the numbers that JSON lacks."""
    if isinstance(value, float):
        return value if value - value == 0 else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [finite(item) for item in value]
    return value


def _fault(value: Any, dumped: bytes, shape: Shape) -> str | None:
    """What is wrong with a document that is JSON; None if it is in order."""
    if not _is_plain(dumped):
        if _depth_exceeds(value):
            return f"more than {MAX_DEPTH} levels deep"
        if has_nul(value):
            return "a NUL character can't be stored: remove it"
    if shape == "object":
        return None if isinstance(value, dict) else f"expected an object, got {_excerpt(dumped)}"
    return None if shape == "value" else _fault_of_entries(value, _ENTRIES[shape], dumped)


def _fault_of_entries(value: Any, members: Mapping[str, type], dumped: bytes) -> str | None:
    if not isinstance(value, list):
        return f"expected a list, got {_excerpt(dumped)}"
    for index, entry in enumerate(value):
        if not isinstance(entry, dict) or entry.keys() != members.keys():
            return f"[{index}]: expected an object of {', '.join(members)}"
        for name, kind in members.items():
            if type(entry[name]) is not kind:
                return f"[{index}].{name}: expected {_KINDS[kind]}"
    return None


_KINDS: Final = {str: "text", int: "an integer, µs since 1970 UTC", dict: "an object"}


def _excerpt(dumped: bytes) -> str:
    text = dumped.decode()
    return text if len(text) <= 60 else text[:60] + "…"


def _is_plain(raw: bytes) -> bool:
    """Whether a glance at the text shows that it is not too deep and has no NUL."""
    return raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH and _NUL not in raw


def _depth_exceeds(value: Any) -> bool:
    """Whether it has more than MAX_DEPTH levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _items(outer) if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def has_nul(value: Any) -> bool:
    """Whether a text or a key in the value has a NUL character."""
    if isinstance(value, dict):
        return any("\0" in key or has_nul(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(map(has_nul, value))
    return isinstance(value, str) and "\0" in value


class _Twice(Exception):
    pass


def _key_that_occurs_twice(text: str) -> str | None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise _Twice(key)
            keys.add(key)

    try:
        # numbers as they are: Python refuses to read very long ones
        json.loads(text, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except _Twice as twice:
        return str(twice)
    return None


def _why_unwritable(value: Any, where: str, depth: int) -> str | None:
    """The place of the first value that can't be written, and why; None if all can."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{where}: half of a surrogate pair can't be stored: remove it"
        return None
    if isinstance(value, bool | float | bytes | bytearray | memoryview) or value is None:
        return None
    if isinstance(value, int):
        return None if value in _UINT64 else f"{where} is {value}, which is beyond 64 bits: publish it as text"
    if depth > MAX_DEPTH:
        return f"{where}: more than {MAX_DEPTH} levels deep"
    if isinstance(value, Mapping):
        return _why_unwritable_members(value, where, depth)
    if isinstance(value, Sequence):
        faults = (_why_unwritable(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value))
        return next(filter(None, faults), None)
    return f"{where}: a value of type {type(value).__name__} is none of JSON's"


def _why_unwritable_members(members: Mapping[Any, Any], where: str, depth: int) -> str | None:
    for key, item in members.items():
        if not isinstance(key, str):
            return f"{where}: expected keys that are text, got {key!r}"
        fault = _why_unwritable(key, f"{where}, a key", depth) or _why_unwritable(item, f"{where}.{key}", depth + 1)
        if fault is not None:
            return fault
    return None
