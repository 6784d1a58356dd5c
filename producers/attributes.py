"""Attributes as applications set them → tags that the log and Postgres can hold. No value is refused; some become text.

| attribute                               | tag                                              |
|-----------------------------------------|--------------------------------------------------|
| bool, int of 64 bits, finite float, str | as it is                                         |
| tuple or list of those                  | list of those                                    |
| larger int, NaN, infinities             | text: `NaN`, `Infinity`, `-Infinity`             |
| bytes                                   | their UTF-8 text, else hexadecimal               |
| mapping, None, anything else            | JSON, with `str()` for what JSON doesn't know    |

In text, NUL (which Postgres refuses) and lone surrogates (which UTF-8 can't hold) become U+FFFD.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from spanfold.language.events import Scalar, Tags, TagValue

LONGEST_TEXT: Final = 60_000
"""Characters of a log message or a stack trace: a few of them together stay below the size limit of an event."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def tags_of(attributes: Mapping[str, Any] | None) -> Tags:
    """The attributes as tags."""
    return {text_of(str(key)): tag_of(value) for key, value in (attributes or {}).items()}


def tag_of(value: Any) -> TagValue:
    """One attribute's value as a tag's."""
    if isinstance(value, tuple | list):
        return [_scalar(item) for item in value]
    return _scalar(value)


def text_of(value: str) -> str:
    """The text without characters that Postgres or UTF-8 can't hold."""
    if value.isascii() and "\0" not in value:
        return value
    return _UNSTORABLE.sub("\ufffd", value)


def shortened(value: str) -> str:
    """text_of, with its middle cut out when it is longer than LONGEST_TEXT."""
    if len(value) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        value = f"{value[:half]}\n… {len(value) - 2 * half:,} characters are left out …\n{value[-half:]}"
    return text_of(value)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 63 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else json.dumps(float(value))
    if isinstance(value, bytes | bytearray):
        return _text_of_bytes(bytes(value))
    return text_of(json.dumps(value, default=str, ensure_ascii=False))


def _text_of_bytes(value: bytes) -> str:
    try:
        return text_of(value.decode())
    except UnicodeDecodeError:
        return value.hex()
