"""Settling parked records: a fact for each is appended where the record lies, and what became of it is read back."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from spanfold.cli.parked_records import ParkedRecord, named, reader
from spanfold.language.errors import InvalidInput, LogUnavailable, Misconfigured, SpanfoldError
from spanfold.language.events import DomainEvent, RecordDiscarded, RecordRetried
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import Position
from spanfold.language.topics import ON_EVERY_TOPIC, TRACE_ERASED, Partition
from spanfold.operations.installation import user_at_host
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher

Fact = type[RecordRetried] | type[RecordDiscarded]

SETTLED_AS: Final[dict[Fact, str]] = {RecordRetried: "retried", RecordDiscarded: "discarded"}
"""The state of a record after its fact."""


@dataclass
class Appended:
    """Where the facts lie. `ends` is the next offset of each partition that has some."""

    ends: dict[Partition, int] = field(default_factory=dict)
    failures: list[SpanfoldError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, record: ParkedRecord, outcome: Outcome) -> None:
        """Called by the publisher, once a fact."""
        with self._lock:
            if isinstance(outcome, Delivery) and outcome.partition == record.partition:
                partition = (record.topic, outcome.partition)
                self.ends[partition] = max(self.ends.get(partition, 0), outcome.offset + 1)
            else:
                self.failures.append(_elsewhere(record, outcome) if isinstance(outcome, Delivery) else outcome)


def _elsewhere(record: ParkedRecord, delivery: Delivery) -> Misconfigured:
    return Misconfigured(
        f"the fact about {record.position} went to partition {delivery.partition} of {delivery.topic}: this is not the log "
        "that the tables were folded from. There it is rejected as misrouted; name the right Kafka"
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the records: those that are settled by state, and those that are still parked."""

    states: dict[str, int]
    still_parked: list[ParkedRecord]


def to_settle(fact: Fact, records: Sequence[ParkedRecord], *, by_position: bool) -> list[ParkedRecord]:
    """Those that the fact can be about: what is settled that way already is left out, and so is, unless it was named, what
    a fact can't be about. InvalidInput says of a named one why it can't be.
    """
    chosen = []
    for record in records:
        why_not = _why_not(fact, record)
        if why_not and by_position:
            raise InvalidInput(f"{record.position} {why_not}; nothing was done")
        if not why_not and record.state == "parked":
            chosen.append(record)
    return chosen


def unfulfilled(fact: Fact, records: Iterable[ParkedRecord]) -> list[str]:
    """A line about each parked TraceErased: the trace that it names is not erased, and a retry leaves it so."""
    parked = [record for record in records if record.state == "parked" and record.event_type == TRACE_ERASED]
    return [f"{record.position} {_why_not(fact, record)}" for record in parked if fact is RecordRetried]


def _why_not(fact: Fact, record: ParkedRecord) -> str | None:
    if record.state not in ("parked", SETTLED_AS[fact]):
        return f"was {record.state} at offset {record.settled_offset}, and a record is settled once"
    if record.reason == ParkedReason.BEHIND:
        return "is parked behind an earlier record of its aggregate: settle that one, and this one follows"
    if fact is RecordRetried and record.event_type in ON_EVERY_TOPIC:
        return f"is a {record.event_type} itself: retry the record that it is about, and discard this one"
    if fact is RecordRetried and record.event_type == TRACE_ERASED:
        return (
            f"is a {TRACE_ERASED}, which erases only where it lies: run `spanfold erase {record.aggregate_id!r}` again"
        )
    return None


def append_facts(
    publisher: TelemetryPublisher, events: Iterable[tuple[ParkedRecord, DomainEvent]], timeout_s: float
) -> Appended:
    """Append the fact about each record, and wait until Kafka has them all. LogUnavailable or Misconfigured when any was
    not delivered to the partition of its record.
    """
    appended = Appended()
    for record, event in events:
        publisher.publish(event, on_delivery=partial(appended.note, record))
    unsent = publisher.flush(timeout_s)
    if appended.failures:
        raise appended.failures[0]
    if unsent:
        raise LogUnavailable(
            f"Kafka did not acknowledge {unsent} facts within {timeout_s:g} s; doing the same again is safe"
        )
    return appended


def facts_about(
    fact: Fact, records: Iterable[ParkedRecord], why: str, now_us: int
) -> Iterator[tuple[ParkedRecord, DomainEvent]]:
    """Each record with the fact about it, dated `now_us` (µs since 1970 UTC)."""
    source = user_at_host()
    for record in records:
        yield (
            record,
            fact(
                aggregate_id=str(record.aggregate_id),
                occurred_at=now_us,
                source=source,
                record_topic=record.topic,
                record_offset=record.kafka_offset,
                why=why,
            ),
        )


def what_became_of(dsn: str, positions: Sequence[Position]) -> Settled:
    """The records as the tables have them now."""
    states: dict[str, int] = {}
    still_parked = []
    with reader(dsn) as connection:
        for record in named(connection, positions):
            if record.state == "parked":
                still_parked.append(record)
            else:
                states[record.state] = states.get(record.state, 0) + 1
    return Settled(states, still_parked)


def counts_by(records: Iterable[ParkedRecord], key: Callable[[ParkedRecord], Any]) -> dict[Any, int]:
    """How many records have each key, in the order of the keys."""
    counts: dict[Any, int] = {}
    for record in records:
        counts[key(record)] = counts.get(key(record), 0) + 1
    return dict(sorted(counts.items()))
