"""Readers of JSON values. A reader takes a value and its path in the document, and returns the value as spanfold uses it, or
raises InvalidInput with the path, what was expected, and the value.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final

from spanfold.language.documents import MAX_DEPTH
from spanfold.language.errors import InvalidInput
from spanfold.language.events import Tags, TagValue
from spanfold.language.times import EPOCH, US

Reader = Callable[[Any, str], Any]

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.(\d+))?([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)
_INTEGER: Final = re.compile(r"-?\d{1,20}")
_OTHER_UNITS: Final = {"s": range(10**9, 10**10), "ms": range(10**12, 10**13), "ns": range(10**18, 10**19)}
"""Integers of the years 2001 to 2286 in these units. As µs they would be of early 1970, or of no year that there is."""

_EXAMPLE: Final = "2026-11-23T07:00:00.123456Z"
_FIRST_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // US
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // US
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_NO_JSON_NUMBER: Final = ("NaN", "Infinity", "-Infinity")
_INT64: Final = range(-(1 << 63), 1 << 63)
_EXCERPT_CHARACTERS: Final = 60
_DECIMAL_PLACES: Final = 20


def text(value: Any, where: str) -> str:
    """Text that Postgres and UTF-8 can store."""
    if not isinstance(value, str):
        raise wrong(where, "text", value)
    refused = _UNSTORABLE.search(value)
    if refused:
        character = "a NUL character" if refused[0] == "\0" else "half of a surrogate pair"
        raise InvalidInput(f"{where}: {character} at position {refused.start()} can't be stored: remove it")
    return value


def name_of(longest: int) -> Reader:
    """Text of 1 to `longest` characters."""

    def read(value: Any, where: str) -> str:
        name = text(value, where)
        if not 1 <= len(name) <= longest:
            raise InvalidInput(f"{where}: expected 1 to {longest} characters, got {len(name)}")
        return name

    return read


def choice(*allowed: str) -> Reader:
    """One of these texts."""

    def read(value: Any, where: str) -> str:
        if value not in allowed:
            raise wrong(where, f"one of {', '.join(allowed)}", value, closest(value, allowed))
        return str(value)

    return read


def or_null(read: Reader) -> Reader:
    """A value for `read`, or null."""
    return lambda value, where: None if value is None else read(value, where)


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def integer(least: int, greatest: int) -> Reader:
    """A whole number from `least` to `greatest`."""

    def read(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
            raise wrong(where, f"a whole number from {least} to {greatest}", value)
        return value

    return read


def number(value: Any, where: str) -> int | float:
    """A number. NaN, Infinity and -Infinity, which JSON lacks, are text."""
    if isinstance(value, str) and value in _NO_JSON_NUMBER:
        return float(value)
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and value in _INT64):
        return value
    raise wrong(where, 'a number ("NaN", "Infinity" and "-Infinity" are text)', value)


def real(value: Any, where: str) -> float:
    """The same, as a floating-point number."""
    return float(number(value, where))


def number_text(value: float) -> int | float | str:
    """The inverse of `number`: NaN and infinities become text."""
    return value if math.isfinite(value) else json.dumps(value)


def decimal_text(value: Decimal) -> str:
    """A finite number with all its digits, as JSON; with an exponent where a reader of 64 bits could not take it otherwise."""
    if -(1 << 63) <= value < 1 << 64 and value.adjusted() > -_DECIMAL_PLACES:
        return f"{value:f}"
    sign, digits, _ = value.as_tuple()
    first, rest = str(digits[0]), "".join(map(str, digits[1:])).rstrip("0")
    return f"{'-' if sign else ''}{first}{'.' if rest else ''}{rest}e{value.adjusted():+}"


def time_us(value: Any, where: str) -> int:
    """A time of the years 1 to 9999 → µs since 1970 UTC. It is RFC 3339 text, also with a zone as Postgres writes it (+00), UTC
    where it names no zone and midnight where it is a date; or an integer of µs since 1970 UTC, also as text. An integer that can
    only be s, ms or ns is refused.
    """
    number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
    if isinstance(number, int) and not isinstance(number, bool):
        _refuse_other_units(number, where)
        if _FIRST_US <= number <= _LAST_US:
            return number
    matched = _TIME.fullmatch(value) if isinstance(value, str) else None
    if matched:
        day, clock, fraction, offset = matched.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(offset or 'Z').upper()}")
            us = (whole - EPOCH) // US + int((fraction or "")[:6].ljust(6, "0"))
        except ValueError as error:
            raise InvalidInput(f"{where}: {value!r} is not a time: {error}") from error
        if _FIRST_US <= us <= _LAST_US:
            return us
    raise wrong(where, f"a time such as {_EXAMPLE}, or µs since 1970 UTC", value)


def _refuse_other_units(number: int, where: str) -> None:
    for unit, years in _OTHER_UNITS.items():
        if number in years:
            raise InvalidInput(f"{where}: {number} looks like {unit} since 1970: pass µs, or text such as {_EXAMPLE}")


def time_text(us: int) -> str | int:
    """The inverse of time_us: RFC 3339 in UTC with six decimals. A time outside the years 1 to 9999 stays a number."""
    if not _FIRST_US <= us <= _LAST_US:
        return us
    return (EPOCH + us * US).isoformat(timespec="microseconds").replace("+00:00", "Z")


def tags(value: Any, where: str) -> Tags:
    """An object with any values of JSON."""
    return _members(mapping(value, where), where, 1)


def anything(value: Any, where: str) -> TagValue:
    """Any value of JSON that can be stored."""
    return _value(value, where, 0)


def texts(value: Any, where: str) -> Mapping[str, str]:
    """An object whose values are text."""
    return {text(key, f"{where}, a key"): text(item, f"{where}.{key}") for key, item in mapping(value, where).items()}


def list_of(read: Reader) -> Reader:
    """A list of values for `read`, as a tuple."""

    def read_list(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong(where, "a list", value)
        return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(value))

    return read_list


def object_of(readers: Mapping[str, Reader], defaults: Mapping[str, Callable[[], Any]] | None = None) -> Reader:
    """An object with these fields. Those that may be absent have a default."""

    def read(value: Any, where: str) -> dict[str, Any]:
        members = mapping(value, where)
        refuse_unknown(members, tuple(readers), where)
        absent = {name: make() for name, make in (defaults or {}).items() if name not in members}
        refuse_missing({**members, **absent}, tuple(readers), where)
        return {
            name: absent[name] if name in absent else reader(members[name], f"{where}.{name}")
            for name, reader in readers.items()
        }

    return read


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def refuse_unknown(members: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """InvalidInput names the first unknown field, and the allowed ones."""
    for name in members:
        if name not in allowed:
            hint = closest(name, allowed)
            raise InvalidInput(f"{where}: unknown field {name!r}{hint}; allowed are {', '.join(allowed)}")


def refuse_missing(members: Mapping[str, Any], required: Sequence[str], where: str) -> None:
    """InvalidInput names every required field that is missing."""
    missing = [name for name in required if name not in members]
    if missing:
        raise InvalidInput(f"{where}: missing {', '.join(missing)}")


def closest(value: Any, allowed: Sequence[str]) -> str:
    """` (did you mean …?)` if one of the allowed texts is similar, else empty."""
    close = get_close_matches(value, allowed, 1) if isinstance(value, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def wrong(where: str, expected: str, value: Any, hint: str = "") -> InvalidInput:
    """The error for a value that is not what was expected; a long value is cut off."""
    excerpt = repr(value)
    if len(excerpt) > _EXCERPT_CHARACTERS:
        excerpt = excerpt[:_EXCERPT_CHARACTERS] + "…"
    return InvalidInput(f"{where}: expected {expected}, got {excerpt}{hint}")


def _members(members: Mapping[str, Any], where: str, depth: int) -> Tags:
    return {text(key, f"{where}, a key"): _value(item, f"{where}.{key}", depth) for key, item in members.items()}


def _value(value: Any, where: str, depth: int) -> TagValue:
    """`depth` is how many lists and objects it is in."""
    if isinstance(value, list | dict):
        if depth == MAX_DEPTH:
            raise InvalidInput(f"{where}: more than {MAX_DEPTH} levels of lists and objects")
        if isinstance(value, dict):
            return _members(value, where, depth + 1)
        return [_value(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> TagValue:
    if isinstance(value, str):
        return text(value, where)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        if value not in _INT64:
            raise wrong(where, "an integer of 64 bits (write a larger one as text)", value)
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise wrong(where, 'a value of JSON (write "NaN", "Infinity" and "-Infinity" as text)', value)
