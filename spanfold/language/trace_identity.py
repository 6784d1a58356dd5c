"""What makes facts of a trace be about the same root, and records of a span the same span (docs/adr/0017, 0018). The write side
and the read models go by it alike.
"""

from typing import Final

from spanfold.language.topics import US_PER_DAY

MAX_SPAN_DAYS: Final = 7
"""A span that is recorded again is the same span only if its end is at most this long after its start."""

MAX_SPAN_US: Final = MAX_SPAN_DAYS * US_PER_DAY

RootKey = tuple[int, int, str]
"""NO_SPAN, or (1, start_time in µs since 1970, span_id) of the root span; the least key is the trace's root."""

NO_SPAN: Final[RootKey] = (0, 0, "")
"""The root of facts that name no span."""


def root_key(span_id: str | None, start_time: int | None) -> RootKey:
    """The key of the root that a fact names; times in µs since 1970."""
    return NO_SPAN if span_id is None or start_time is None else (1, start_time, span_id)


def own_id(start: int, end: int, event_id: bytes) -> bytes:
    """The event id of a span that is longer than MAX_SPAN_US, which is the same as no other span; else empty. Times in µs."""
    return event_id if end - start > MAX_SPAN_US else b""
