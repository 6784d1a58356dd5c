"""Publishing a stream of events: what was sent, where it lies, and which lines were refused."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from spanfold.language.errors import InvalidInput, LogUnavailable, SpanfoldError
from spanfold.language.event_json import event_from_json
from spanfold.language.events import Event
from spanfold.language.ids import id_text
from spanfold.language.times import now_us
from spanfold.language.topics import Partition
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher

Complain = Callable[[str], None]


@dataclass
class Sent:
    """What became of the events of a stream. `rows` has one entry per delivered event, where that was asked for."""

    keep_rows: bool = False
    delivered: int = 0
    ends: dict[Partition, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[SpanfoldError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, event: Event, outcome: Outcome) -> None:
        """Called by the publisher, once an event."""
        with self._lock:
            if not isinstance(outcome, Delivery):
                self.failures.append(outcome)
                return
            self.delivered += 1
            partition = (event.topic.name, outcome.partition)
            self.ends[partition] = max(self.ends.get(partition, 0), outcome.offset + 1)
            if self.keep_rows:
                self.rows.append(_row(event, outcome))


def send(publisher: TelemetryPublisher, events: Iterable[Event], sent: Sent, timeout_s: float) -> None:
    """Publish them and wait for their outcomes; LogUnavailable or Misconfigured when any was not delivered."""
    for event in events:
        publisher.publish(event, on_delivery=partial(sent.note, event))
    unsent = publisher.flush(timeout_s)
    if sent.failures:
        raise sent.failures[0]
    if unsent:
        raise LogUnavailable(
            f"Kafka did not acknowledge {unsent} events within {timeout_s:g} s; publishing again is safe"
        )


def events_of_lines(lines: Iterable[bytes], source: str, complain: Complain) -> Iterator[Event]:
    """The event of each line that isn't blank; `complain` is told of the lines that hold none, with their numbers."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield event_from_json(parsed(line), now_us(), source)
        except InvalidInput as error:
            complain(f"line {number}: {error}")


def parsed(text: bytes | str) -> Any:
    """The JSON value; InvalidInput when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}") from None


def _row(event: Event, delivery: Delivery) -> dict[str, Any]:
    return {
        "event_id": id_text(event.event_id),
        "event_type": event.event_type,
        "aggregate_id": event.aggregate_id,
        "topic": delivery.topic,
        "partition": delivery.partition,
        "offset": delivery.offset,
    }
