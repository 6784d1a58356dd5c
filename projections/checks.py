"""What an event's schema cannot say of its values. Pure; an event that fails is parked as `invalid`, with the answer."""

from collections.abc import Callable, Mapping
from typing import Final

from schemas.codec import Fields

MAX_SERVICE_NAME_BYTES: Final = 512
"""The key of an error without a trace is its service's name, and no key is longer than this (verdicts.py)."""


def why_no_error(fields: Fields) -> str | None:
    """What is wrong with an ErrorLogged, or None."""
    length = len(fields["service_name"].encode())
    if length > MAX_SERVICE_NAME_BYTES:
        return f"service_name is {length} bytes long; at most {MAX_SERVICE_NAME_BYTES} fit into a key"
    return None


CHECKS: Final[Mapping[str, Callable[[Fields], str | None]]] = {
    "ErrorLogged": why_no_error,
}
"""By event type: why these fields cannot become a row, or None if they can."""
