"""Identifiers of events.

An event id is a UUID of version 8 (RFC 9562 §5.8): 48 bits of the event's time in Unix milliseconds, then 74 bits of a
hash of what makes the event itself. A client's retry therefore mints the same id, and ids sort by event time.
"""

import hashlib
import re
import uuid
from typing import Final

_VERSION_8 = 0x8 << 76
_VARIANT = 0b10 << 62
_RAND_A = (1 << 12) - 1
_RAND_B = (1 << 62) - 1
_TRACE_HEX: Final = re.compile("[0-9a-f]{32}")


def event_id(occurred_at_us: int, *identity: str) -> bytes:
    """The 16 bytes of the id of the event that happened at `occurred_at_us` (µs since 1970, UTC).

    `identity` is what tells this event from others of the same time: its type and aggregate, for a span also span id,
    kind and service. Times outside 1970…10889 are clamped in the id's time bits only; the full time goes into the hash.
    """
    # length-prefixed, so that ("a", "bc") and ("ab", "c") differ
    text = "".join(f"{len(part)}:{part}" for part in (str(occurred_at_us), *identity))
    digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    ms = min(max(occurred_at_us // 1000, 0), (1 << 48) - 1)
    value = ms << 80 | _VERSION_8 | (digest >> 64 & _RAND_A) << 64 | _VARIANT | digest & _RAND_B
    return value.to_bytes(16, "big")


def trace_hex(trace_id: str) -> str:
    """A trace id as 32 hex digits: itself if it is that already, else its MD5. The same as the function spanfold.trace_hex."""
    return (
        trace_id
        if _TRACE_HEX.fullmatch(trace_id)
        else hashlib.md5(trace_id.encode(), usedforsecurity=False).hexdigest()
    )


def id_text(raw: bytes) -> str:
    """The canonical 36 characters of a 16-byte id."""
    return str(uuid.UUID(bytes=raw))


def time_of(raw: bytes) -> int | None:
    """The time in the id, in µs since 1970 UTC and whole milliseconds; None of an id that is no UUID of version 8."""
    value = int.from_bytes(raw, "big")
    is_version_8 = value >> 76 & 0xF == 0x8 and value >> 62 & 0b11 == _VARIANT >> 62
    return (value >> 80) * 1000 if is_version_8 else None
