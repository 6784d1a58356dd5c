"""What a record carries besides its value: the key is the aggregate id in UTF-8, and the headers are text.

| header           | value                                                       |
|------------------|-------------------------------------------------------------|
| event_id         | UUID, 36 characters                                         |
| event_type       | e.g. TraceCreated                                           |
| occurred_at      | µs since 1970 UTC, decimal                                  |
| expected_version | conditional topics only: the version that the append expects |
| traceparent      | W3C Trace Context of the publisher, if there is one         |

A record's verdict needs only its key, these headers, its log time and its position.
"""

from typing import Final

from spanfold.language.errors import InvalidInput
from spanfold.language.events import DomainEvent
from spanfold.language.ids import id_text

EVENT_ID: Final = "event_id"
EVENT_TYPE: Final = "event_type"
OCCURRED_AT: Final = "occurred_at"
EXPECTED_VERSION: Final = "expected_version"
TRACEPARENT: Final = "traceparent"

MAX_HEADERS: Final = 256
MAX_HEADERS_BYTES: Final = 64 * 1024
"""Names and values of a record's headers together. A record with more, of either, is malformed for ever (docs/adr/0003)."""

Headers = list[tuple[str, bytes]]


def key_of(event: DomainEvent) -> bytes:
    """The record key: the aggregate id."""
    return event.aggregate_id.encode()


def headers_of(event: DomainEvent, traceparent: str | None = None) -> Headers:
    """The record's headers, in the order that the table above has. InvalidInput when they are more than a record may have."""
    headers = [
        (EVENT_ID, id_text(event.event_id).encode()),
        (EVENT_TYPE, event.event_type.encode()),
        (OCCURRED_AT, str(event.occurred_at).encode()),
    ]
    if traceparent:
        headers.append((TRACEPARENT, traceparent.encode()))
        size = sum(len(name) + len(value) for name, value in headers)
        if size > MAX_HEADERS_BYTES:
            raise InvalidInput(f"the record's headers take {size:,} bytes; at most {MAX_HEADERS_BYTES:,} are accepted")
    return headers
