"""Settling parked records: a fact for each is appended where the record lies, and what became of it is read back."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from spanfold.language.errors import InvalidInput, LogUnavailable, Misconfigured, SpanfoldError
from spanfold.language.events import DomainEvent, RecordDiscarded, RecordRetried
from spanfold.language.parking import ParkedReason
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.language.times import now_us
from spanfold.language.topics import ON_EVERY_TOPIC, TRACE_ERASED, Partition
from spanfold.operations.installation import Installation, user_at_host
from spanfold.operations.parked.records import NO_FILTERS, Filters, ParkedRecord, State, at_positions, matching, reader
from spanfold.operations.positions import position_of
from spanfold.operations.visibility import wait_until_visible
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher

Fact = type[RecordRetried] | type[RecordDiscarded]

SETTLED_AS: Final[dict[Fact, State]] = {RecordRetried: State.RETRIED, RecordDiscarded: State.DISCARDED}
"""The state of a record after its fact."""

PIECE: Final = 1000
"""So many facts are appended at a time: what `timeout_s` bounds, and what is at most under way when this is interrupted."""


@dataclass(frozen=True, slots=True)
class SettleOptions:
    """How records are settled. `why` is kept in the log; `wait` returns when the read models have passed the facts; `timeout_s`
    bounds the wait for Kafka, and that for the read models, of each 1,000 records.
    """

    why: str = ""
    wait: bool = True
    timeout_s: float = 30.0


DEFAULT_OPTIONS: Final = SettleOptions()


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that a fact is to be about; `remarks` say of others why not."""

    records: Sequence[ParkedRecord]
    remarks: Sequence[str]


@dataclass(frozen=True, slots=True)
class SettleReport:
    """What became of the records. `appended` is how many facts there are; the others are unknown (None) when nobody waited:
    how many records are retried, discarded or erased now, and those that are still parked.
    """

    appended: int
    remarks: Sequence[str]
    retried: int | None = None
    discarded: int | None = None
    erased: int | None = None
    still_parked: Sequence[ParkedRecord] | None = None


def retry_parked(
    installation: Installation,
    positions: Sequence[str] = (),
    filters: Filters = NO_FILTERS,
    every: bool = False,
    limit: int | None = None,
    options: SettleOptions = DEFAULT_OPTIONS,
    progress: ProgressListener = NO_PROGRESS,
) -> SettleReport:
    """Fold parked records, once what kept them from it is repaired; what still can't be folded stays parked. They are chosen in
    one way: by positions, by filters (with `limit`, the newest), or `every` one. Values that were too large to keep are fetched
    from the log first, see store_values.
    """
    selection = select_parked(installation, RecordRetried, positions, filters, every, limit)
    return settle(installation, RecordRetried, selection, options, progress)


def discard_parked(
    installation: Installation,
    positions: Sequence[str] = (),
    filters: Filters = NO_FILTERS,
    every: bool = False,
    limit: int | None = None,
    options: SettleOptions = DEFAULT_OPTIONS,
    progress: ProgressListener = NO_PROGRESS,
) -> SettleReport:
    """Give parked records up for good; see retry_parked."""
    selection = select_parked(installation, RecordDiscarded, positions, filters, every, limit)
    return settle(installation, RecordDiscarded, selection, options, progress)


def select_parked(
    installation: Installation, fact: Fact, positions: Sequence[str], filters: Filters, every: bool, limit: int | None
) -> Selection:
    """The records that the fact can be about. InvalidInput unless they are chosen in just one way, and of a named one that a fact
    can't be about; NotFound of a position where none was ever parked.
    """
    by_filters = filters != NO_FILTERS or limit is not None
    if bool(positions) + by_filters + every != 1:
        raise InvalidInput("choose records in exactly one way: positions, filters such as --reason, or --all")
    prefix, largest = installation.settings.topic_prefix, installation.settings.max_value_bytes
    with reader(installation.dsn) as connection:
        if positions:
            named = list(dict.fromkeys(position_of(position, prefix) for position in positions))
            return _named(fact, at_positions(connection, named), largest)
        records = matching(connection, filters.parameters(prefix), limit)
    chosen = [record for record in records if _can_settle(fact, record, largest)]
    return Selection(chosen, _unfulfilled(fact, records, largest))


def _named(fact: Fact, records: Sequence[ParkedRecord], largest: int) -> Selection:
    for record in records:
        if why_not := _why_not(fact, record, largest):
            raise InvalidInput(f"{record.position} {why_not}; nothing was changed")
    remarks = [
        f"{record.position} was {record.state} before, at offset {record.settled_offset}"
        for record in records
        if record.state == SETTLED_AS[fact]
    ]
    return Selection([record for record in records if _can_settle(fact, record, largest)], remarks)


def _can_settle(fact: Fact, record: ParkedRecord, largest: int) -> bool:
    return record.state == State.PARKED and _why_not(fact, record, largest) is None


def _unfulfilled(fact: Fact, records: Iterable[ParkedRecord], largest: int) -> list[str]:
    """A line about each parked TraceErased: the trace that it names is not erased, and a retry leaves it so. One about each value
    that is too large here.
    """
    parked = [record for record in records if record.state == State.PARKED and fact is RecordRetried]
    named = [record for record in parked if record.event_type == TRACE_ERASED or _is_too_large(record, largest)]
    return [f"{record.position} {_why_not(fact, record, largest)}" for record in named]


def _is_too_large(record: ParkedRecord, largest: int) -> bool:
    return record.value_bytes is not None and record.value_bytes > largest


def _why_not(fact: Fact, record: ParkedRecord, largest: int) -> str | None:
    if record.state not in (State.PARKED, SETTLED_AS[fact]):
        return f"was {record.state} at offset {record.settled_offset}; a record is settled only once"
    if record.reason == ParkedReason.BEHIND:
        return "is parked behind an earlier record of its aggregate; settle that one first, then this one follows"
    if fact is RecordRetried and record.event_type in ON_EVERY_TOPIC:
        return f"is itself a {record.event_type}; retry the record that it names, and discard this one"
    if fact is RecordRetried and record.event_type == TRACE_ERASED:
        return f"is a {TRACE_ERASED}, which can't be retried: run `spanfold erase {record.aggregate_id!r}` again"
    if fact is RecordRetried and _is_too_large(record, largest):
        return (
            f"has a value of {record.value_bytes:,} bytes, more than SPANFOLD_MAX_VALUE_BYTES ({largest:,}): raise it for this "
            "command, and retry"
        )
    return None


def settle(
    installation: Installation, fact: Fact, selection: Selection, options: SettleOptions, progress: ProgressListener
) -> SettleReport:
    """Append the fact about each selected record, and say what became of them. LogUnavailable or StoreUnavailable when that takes
    too long: doing the same again goes on with the others.
    """
    records = selection.records
    if records and fact is RecordRetried:
        from spanfold.operations.parked.from_log import store_values  # it reads the log, most commands do not

        store_values(installation, records, progress)
    if records:
        _append(installation, fact, records, options, progress)
    if not options.wait:
        return SettleReport(len(records), selection.remarks)
    with reader(installation.dsn) as connection:
        now = at_positions(connection, [record.position for record in records])
    counts = {
        state.value: sum(record.state == state for record in now)
        for state in (State.RETRIED, State.DISCARDED, State.ERASED)
    }
    still_parked = [record for record in now if record.state == State.PARKED]
    return SettleReport(len(records), selection.remarks, **counts, still_parked=still_parked)


def _append(
    installation: Installation,
    fact: Fact,
    records: Sequence[ParkedRecord],
    options: SettleOptions,
    progress: ProgressListener,
) -> None:
    """Append the facts, PIECE at a time; a piece is waited for before the next one goes, if they are waited for at all."""
    facts, done, wait_s = _facts_about(fact, records, options.why, now_us()), 0, options.timeout_s
    progress.advanced(done, len(records), "records")
    with TelemetryPublisher(installation.settings, block_timeout_s=wait_s, message_timeout_s=wait_s) as publisher:
        while piece := list(islice(facts, PIECE)):
            try:
                ends = _append_piece(publisher, piece, wait_s)
                if options.wait:
                    wait_until_visible(installation.dsn, ends, wait_s)
            except SpanfoldError:
                progress.step(f"{done:,} of {len(records):,} were done; run the same command again to continue")
                raise
            done += len(piece)
            progress.advanced(done, len(records), "records")


def _facts_about(
    fact: Fact, records: Iterable[ParkedRecord], why: str, at_us: int
) -> Iterator[tuple[ParkedRecord, DomainEvent]]:
    """Each record with the fact about it, dated `at_us` (µs since 1970 UTC)."""
    source = user_at_host()
    for record in records:
        event = fact(
            aggregate_id=str(record.aggregate_id),
            occurred_at=at_us,
            source=source,
            record_topic=record.topic,
            record_offset=record.kafka_offset,
            why=why,
        )
        yield record, event


def _append_piece(
    publisher: TelemetryPublisher, piece: Iterable[tuple[ParkedRecord, DomainEvent]], timeout_s: float
) -> dict[Partition, int]:
    """Append these facts, and wait until Kafka has them all; returns the next offset of each partition that got some.
    LogUnavailable or Misconfigured when any was not delivered to the partition of its record.
    """
    deliveries = _Deliveries()
    for record, event in piece:
        publisher.publish(event, on_delivery=partial(deliveries.note, record))
    unsent = publisher.flush(timeout_s)
    if deliveries.failures:
        raise deliveries.failures[0]
    if unsent:
        raise LogUnavailable(
            f"Kafka did not acknowledge {unsent} events within {timeout_s:g} s; running the command again is safe"
        )
    return deliveries.ends


@dataclass
class _Deliveries:
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
