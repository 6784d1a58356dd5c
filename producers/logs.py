"""What the log handler and the log exporter have in common."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from spanfold.language.events import LogRecorded, TagValue
from spanfold.producers.attributes import shortened, tags_of

REMEMBERED: Final = 10_000
"""Log records that a handler compares the next one with."""

_LONG: Final = ("exception.message", "exception.stacktrace")


class Ordinals:
    """Numbers equal log records 0, 1, 2, …, so that each is an event of its own."""

    def __init__(self, remembered: int | None = None) -> None:
        """Compare with all records, or with so many."""
        self._remembered = remembered
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def numbered(self, record: LogRecorded) -> LogRecorded:
        """The record, which has no ordinal yet, with its own. Records are equal when their event ids are."""
        ordinal = self._counts.get(record.event_id, 0)
        self._counts[record.event_id] = ordinal + 1
        if self._remembered and len(self._counts) > self._remembered:
            self._counts.popitem(last=False)
        return replace(record, ordinal=ordinal, event_id=b"") if ordinal else record


def log_tags(attributes: Mapping[str, Any] | None) -> Mapping[str, TagValue]:
    """The attributes of a log record as tags, the long texts of an exception shortened."""
    tags = dict(tags_of(attributes))
    for name in _LONG:
        if isinstance(text := tags.get(name), str):
            tags[name] = shortened(text)
    return tags
