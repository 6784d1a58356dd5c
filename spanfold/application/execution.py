"""Executes commands on aggregates: load, decide, append."""

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
    """The result of a command: the events that it added (none if it had no effect, or was executed before), the aggregate's
    version after it, and the position of the append.
    """

    events: Sequence[DomainEvent]
    version: int
    position: Position | None


@dataclass(frozen=True, slots=True)
class Retry:
    """How a command is tried again after a Conflict: up to `attempts` times in total, each time under a new event id. The wait
    between two attempts is random, at first up to `first_wait_s`, then up to twice as long each time, at most `longest_wait_s`.
    """

    attempts: int = 8
    first_wait_s: float = 0.01
    longest_wait_s: float = 1.0

    async def run(self, command: C, action: Callable[[C], Awaitable[R]]) -> R:
        """The result of `action`; raises the last Conflict if every attempt met one."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            stop=stop_after_attempt(self.attempts),
            wait=backoff(self.first_wait_s, self.longest_wait_s),
            reraise=True,
        )

        async def attempt_next() -> R:
            nonlocal command
            current, command = command, command.again()
            return await action(current)

        return await attempts(attempt_next)


async def load(
    store: EventStore,
    aggregate_type: type[A],
    aggregate_id: str,
    *,
    consistency: Consistency = Consistency.EVENTUAL,
) -> A:
    """The aggregate, from its snapshot, if there is one of its fold version, and the events after that."""
    topic = aggregate_type.topic
    snapshot = await store.get_snapshot(topic, aggregate_id, aggregate_type.fold_version)
    aggregate = aggregate_type(aggregate_id)
    if snapshot is not None:
        state = aggregate_type.from_plain(snapshot.state)
        aggregate = aggregate_type(aggregate_id, state=state, version=snapshot.version)
    history = await store.get_events(topic, aggregate_id, aggregate.version, consistency=consistency)
    for recorded in history:
        aggregate.apply_event(recorded.event, recorded.version)
    # a record that settles a parked one also has a version, but is not an event of the aggregate
    aggregate.version = max(aggregate.version, history.version)
    return aggregate


def snapshot_of(aggregate: Aggregate[Any]) -> Snapshot:
    """The snapshot of an aggregate without pending events."""
    return Snapshot(aggregate.id, aggregate.version, aggregate.fold_version, aggregate.as_plain(aggregate.state))


async def execute(
    store: EventStore, aggregate_type: type[Aggregate[Any]], command: DomainCommand, retry: Retry | None = None
) -> Executed:
    """Execute the command, and try again after a Conflict. A command with the same command_id is executed once, however often it
    is sent. CommandRefused if it violates a rule of the aggregate, OutcomeUnknown when there is no answer in time: send it again.
    """
    return await (retry or Retry()).run(command, lambda current: attempt(store, aggregate_type, current))


async def attempt(store: EventStore, aggregate_type: type[Aggregate[Any]], command: DomainCommand) -> Executed:
    """Execute the command without trying again; raises what execute raises, and Conflict."""
    conditional = aggregate_type.topic.kind is TopicKind.CONDITIONAL
    # a plain read might not see yet what the conflict was with
    consistency = Consistency.LINEARIZABLE if command.attempt else Consistency.EVENTUAL
    aggregate = await load(store, aggregate_type, command.aggregate_id, consistency=consistency)
    expected = aggregate.version
    try:
        events = aggregate.handle(command)
    except CommandRefused:
        # the reason may be its own effect, if it was sent before
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
