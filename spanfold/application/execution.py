"""Load, decide, append: how a command is carried out on an aggregate."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from spanfold.application.aggregates.base import Aggregate
from spanfold.application.event_store import ANY, Appended, Conflict, Consistency, EventStore, Snapshot
from spanfold.application.messages import DomainCommand
from spanfold.language.errors import CommandRefused
from spanfold.language.events import DomainEvent
from spanfold.language.positions import Position
from spanfold.language.retries import backoff
from spanfold.language.topics import TopicKind

A = TypeVar("A", bound=Aggregate[Any])
C = TypeVar("C", bound=DomainCommand)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Executed:
    """What a command has done: the events that it added (none when what it wished was so already, or it had been carried out
    before), the aggregate's version after it, and where the append lies.
    """

    events: Sequence[DomainEvent]
    version: int
    position: Position | None


@dataclass(frozen=True, slots=True)
class Retry:
    """After a Conflict a command is tried again, at most `attempts` times in all, each under a new event id. Between two
    attempts passes a random time, at first up to `first_wait_s`, then up to twice that of before, never above `longest_wait_s`.
    """

    attempts: int = 8
    first_wait_s: float = 0.01
    longest_wait_s: float = 1.0

    async def run(self, command: C, carry_out: Callable[[C], Awaitable[R]]) -> R:
        """What `carry_out` returns; the last Conflict when every attempt met one."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            stop=stop_after_attempt(self.attempts),
            wait=backoff(self.first_wait_s, self.longest_wait_s),
            reraise=True,
        )

        async def carry_out_next() -> R:
            nonlocal command
            wish, command = command, command.again()
            return await carry_out(wish)

        return await attempts(carry_out_next)


async def load(
    store: EventStore,
    aggregate_type: type[A],
    aggregate_id: str,
    *,
    consistency: Consistency = Consistency.EVENTUAL,
) -> A:
    """The aggregate: its snapshot, if there is one of this fold, and the events after it."""
    topic = aggregate_type.topic
    snapshot = await store.get_snapshot(topic, aggregate_id, aggregate_type.fold_version)
    aggregate = aggregate_type(aggregate_id)
    if snapshot is not None:
        state = aggregate_type.from_plain(snapshot.state)
        aggregate = aggregate_type(aggregate_id, state=state, version=snapshot.version)
    history = await store.get_events(topic, aggregate_id, aggregate.version, consistency=consistency)
    for recorded in history:
        aggregate.apply_event(recorded.event, recorded.version)
    # also a fact that settles a parked record is a version, and no event of the aggregate
    aggregate.version = max(aggregate.version, history.version)
    return aggregate


def snapshot_of(aggregate: Aggregate[Any]) -> Snapshot:
    """The snapshot of an aggregate that has no pending events."""
    return Snapshot(aggregate.id, aggregate.version, aggregate.fold_version, aggregate.as_plain(aggregate.state))


async def execute(
    store: EventStore, aggregate_type: type[Aggregate[Any]], command: DomainCommand, retry: Retry | None = None
) -> Executed:
    """Carry the command out, again after a Conflict. The same command (by its command_id) is carried out once, however often
    it is sent. CommandRefused when a rule forbids it, OutcomeUnknown when there is no answer in time: send it again.
    """
    return await (retry or Retry()).run(command, lambda wish: attempt(store, aggregate_type, wish))


async def attempt(store: EventStore, aggregate_type: type[Aggregate[Any]], command: DomainCommand) -> Executed:
    """Carry the command out without trying again; raises what execute raises, and Conflict."""
    conditional = aggregate_type.topic.kind is TopicKind.CONDITIONAL
    # what the conflict was with may not have been judged when the read began
    consistency = Consistency.LINEARIZABLE if command.attempt else Consistency.EVENTUAL
    aggregate = await load(store, aggregate_type, command.aggregate_id, consistency=consistency)
    expected = aggregate.version
    try:
        events = aggregate.handle(command)
    except CommandRefused:
        # perhaps by what it has done itself, when it was sent before
        earlier = await _earlier(store, aggregate_type, command) if conditional else None
        if earlier is None:
            raise
        return Executed((), earlier.version, earlier.position)
    if not events:
        return Executed((), aggregate.version, None)
    if not conditional:
        appended = await store.append_events(events, ANY)
    else:
        record_id = command.record_id()
        named = [replace(events[0], event_id=record_id)] if len(events) == 1 else events
        appended = await store.append_events(named, expected, batch_id=record_id)
        events = named
    return Executed(() if appended.repeated else tuple(events), appended.version, appended.position)


async def _earlier(store: EventStore, aggregate_type: type[Aggregate[Any]], command: DomainCommand) -> Appended | None:
    return await store.outcome_of(aggregate_type.topic, command.aggregate_id, command.record_id())
