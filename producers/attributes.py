"""Attributes as applications set them → tags that the log and Postgres can hold. No value is refused; some become text.

| attribute                             | tag                                                         |
|---------------------------------------|-------------------------------------------------------------|
| None, bool, finite float, str         | as it is                                                    |
| int of 64 bits; a larger one          | as it is; its decimal digits as text                        |
| NaN, infinities                       | text: `NaN`, `Infinity`, `-Infinity`                        |
| bytes                                 | base64 text                                                 |
| tuple or list; mapping                | list; object: nested as they are, the keys as text          |
| what is nested more than NESTED deep  | its JSON as text                                            |
| anything else                         | `str()`; also of a list or mapping that contains itself     |

In text and keys, NUL (which Postgres refuses) and lone surrogates (which UTF-8 can't hold) become U+FFFD.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from spanfold.language.documents import MAX_DEPTH, canonical
from spanfold.language.events import Tags, TagValue

LONGEST_TEXT: Final = 60_000
"""Characters of a log message or a stack trace: a few of them together stay below the size limit of an event."""

NESTED: Final = MAX_DEPTH - 3
"""Levels of lists and mappings in an attribute. Those of a span's events are in three more: list, event, attributes."""

_CONTAINERS: Final = (list, tuple, Mapping)
_BYTES: Final = (bytes, bytearray, memoryview)
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def tags_of(attributes: Mapping[str, Any] | None) -> Tags:
    """The attributes as tags."""
    return {any_text(key): tag_of(value) for key, value in attributes.items()} if attributes else {}


def tag_of(value: Any, around: tuple[int, ...] = ()) -> TagValue:
    """One attribute's value as a tag's; `around` are the ids of the lists and mappings that it is in."""
    if isinstance(value, str):
        return text_of(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 63 else any_text(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else json.dumps(float(value))
    if isinstance(value, _CONTAINERS):
        return _nested(value, around)
    if isinstance(value, _BYTES):
        return base64.b64encode(value).decode()
    return any_text(value)


def body_of(value: Any) -> TagValue:
    """A log record's body as a value of JSON; shortened text when it is long."""
    if isinstance(value, str):
        return shortened(value)
    body = tag_of(value)
    text = canonical(body, "value", "body")
    return body if len(text) <= LONGEST_TEXT else shortened(text)


def text_of(value: str) -> str:
    """The text without characters that Postgres or UTF-8 can't hold."""
    if value.isascii() and "\0" not in value:
        return value
    return _UNSTORABLE.sub("\ufffd", value)


def any_text(value: Any) -> str:
    """What str() makes of the value, as text_of it; its type's name if that fails."""
    try:
        return text_of(value if isinstance(value, str) else str(value))
    except Exception:  # the application's own __str__ raises; an integer has more digits than Python writes
        return f"<{type(value).__name__}>"


def shortened(value: str) -> str:
    """text_of, with its middle cut out when it is longer than LONGEST_TEXT."""
    if len(value) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        value = f"{value[:half]}\n… {len(value) - 2 * half:,} characters are left out …\n{value[-half:]}"
    return text_of(value)


def _nested(value: Any, around: tuple[int, ...]) -> TagValue:
    if id(value) in around:
        return any_text(value)
    if len(around) == NESTED:
        return _json(value)
    inner = (*around, id(value))
    if isinstance(value, Mapping):
        return {any_text(key): tag_of(item, inner) for key, item in value.items()}
    return [tag_of(item, inner) for item in value]


def _json(value: Any) -> str:
    try:
        return text_of(json.dumps(value, default=any_text, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):  # keys that JSON doesn't know, a list in itself, too many levels
        return any_text(value)
