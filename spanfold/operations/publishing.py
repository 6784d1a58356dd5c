"""Publishing events: a stream of them, or what JSON describes; what was delivered, where it lies, what was refused."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import InvalidInput, LogUnavailable, SpanfoldError
from spanfold.language.event_json import event_from_json
from spanfold.language.events import Event
from spanfold.language.ids import id_text
from spanfold.language.positions import Position
from spanfold.language.times import now_us
from spanfold.language.topics import Partition
from spanfold.operations.installation import Installation
from spanfold.operations.visibility import NotShown, not_shown, wait_until_visible
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher

SOURCE: Final = "spanfold"

Refused = Callable[[str], None]
"""Called with the number of a line and why it holds no event."""


@dataclass(frozen=True, slots=True)
class Published:
    """An event that Kafka has acknowledged."""

    position: Position
    topic: str
    partition: int
    offset: int
    event_id: str
    event_type: str
    aggregate_id: str


@dataclass(frozen=True, slots=True)
class PublishReport:
    """How many events Kafka has acknowledged; `events` are all of them, where they were asked for. `visible`: the read models
    show them, except for those that are `not_shown`: rejected, or parked.
    """

    delivered: int
    events: Sequence[Published]
    visible: bool
    not_shown: Sequence[NotShown] = ()


def publish(
    installation: Installation,
    events: Sequence[Mapping[str, Any]],
    source: str = SOURCE,
    wait: bool = False,
    timeout_s: float = 30.0,
) -> PublishReport:
    """Publish these events, described as `spanfold publish` takes them: event_type, aggregate_id, event_data, … InvalidInput
    names the first that is none, and then none is sent. The rest as publish_events.
    """
    described = [_described(number, event, source) for number, event in enumerate(events, start=1)]
    return publish_events(installation, described, wait=wait, timeout_s=timeout_s)


def publish_events(
    installation: Installation,
    events: Iterable[Event],
    *,
    keep_events: bool = True,
    wait: bool = False,
    timeout_s: float = 30.0,
) -> PublishReport:
    """Publish these events, and `wait` until the read models show them or say why they don't. Publishing again is safe.

    LogUnavailable or Misconfigured when any was not delivered, StoreUnavailable when it is not visible within `timeout_s`.
    """
    dsn = installation.dsn if wait else None
    ensure_topics(installation.settings, timeout_s=timeout_s)
    deliveries = _Deliveries(keep_events, keep_offsets=wait)
    with TelemetryPublisher(installation.settings, block_timeout_s=timeout_s, message_timeout_s=timeout_s) as publisher:
        _send(publisher, events, deliveries, timeout_s)
    if dsn is None:
        return PublishReport(deliveries.delivered, deliveries.events, visible=False)
    wait_until_visible(dsn, deliveries.ends, timeout_s)
    return PublishReport(
        deliveries.delivered, deliveries.events, visible=True, not_shown=not_shown(dsn, deliveries.offsets)
    )


def events_of_lines(lines: Iterable[bytes], source: str, refused: Refused) -> Iterator[Event]:
    """The event of each JSON line that isn't blank; `refused` hears of the lines that hold none, with their numbers."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield event_from_json(parsed(line), now_us(), source)
        except InvalidInput as error:
            refused(f"line {number}: {error}")


def parsed(text: bytes | str) -> Any:
    """The JSON value; InvalidInput when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}") from None


def _described(number: int, event: Mapping[str, Any], source: str) -> Event:
    try:
        return event_from_json(event, now_us(), source)
    except InvalidInput as error:
        raise InvalidInput(f"event {number}: {error}; nothing was sent") from error


def _send(publisher: TelemetryPublisher, events: Iterable[Event], deliveries: "_Deliveries", timeout_s: float) -> None:
    for event in events:
        publisher.publish(event, on_delivery=partial(deliveries.note, event))
    unsent = publisher.flush(timeout_s)
    if deliveries.failures:
        raise deliveries.failures[0]
    if unsent:
        raise LogUnavailable(
            f"Kafka did not acknowledge {unsent} events within {timeout_s:g} s; publishing again is safe"
        )


@dataclass
class _Deliveries:
    """What became of the events of a stream: `offsets` are where they lie."""

    keep_events: bool
    keep_offsets: bool
    delivered: int = 0
    offsets: dict[Partition, set[int]] = field(default_factory=lambda: defaultdict(set))
    events: list[Published] = field(default_factory=list)
    failures: list[SpanfoldError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ends(self) -> dict[Partition, int]:
        """The next offset of each partition that got some."""
        return {partition: max(offsets) + 1 for partition, offsets in self.offsets.items()}

    def note(self, event: Event, outcome: Outcome) -> None:
        """Called by the publisher, once an event."""
        with self._lock:
            if not isinstance(outcome, Delivery):
                self.failures.append(outcome)
                return
            self.delivered += 1
            if self.keep_offsets:
                self.offsets[event.topic.name, outcome.partition].add(outcome.offset)
            if self.keep_events:
                self.events.append(_published(event, outcome))


def _published(event: Event, delivery: Delivery) -> Published:
    return Published(
        position=Position(event.topic.name, delivery.partition, delivery.offset),
        topic=delivery.topic,
        partition=delivery.partition,
        offset=delivery.offset,
        event_id=id_text(event.event_id),
        event_type=event.event_type,
        aggregate_id=event.aggregate_id,
    )
