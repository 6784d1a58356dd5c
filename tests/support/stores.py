"""Stores that know other projections or fewer schemas than the installed one, and what they wrote."""

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from spanfold.application.aggregates import ServiceAggregate, TraceAggregate
from spanfold.language.events import Event, RecordDiscarded, RecordRetried
from spanfold.language.settings import Settings
from spanfold.language.snapshot_policy import SnapshotPolicy
from spanfold.language.topics import TRACES
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.projections.commit.store import Store
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import Projection, View, installed
from spanfold.projections.states import Folding, StateStore
from spanfold.projections.traces import TracesProjection
from spanfold.schemas.catalogue import RegisteredSchema, committed
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.strategies import NOW, Record, batch, record
from tests.support.ten_traces import EVENTS


class Stop(Exception):
    pass


class Second(TracesProjection):
    """The same fold under another name."""

    name = "second"
    views: Sequence[View] = ()


def with_second(settings: Settings, second: Projection | None = None) -> dict[str, Projection]:
    """Register a second projection, which begins at 0; returns all."""
    second = second or Second()
    assert settings.postgres_dsn
    with engine_of(settings.postgres_dsn).begin() as connection:
        lifecycle.create_generation(connection, second, GenerationState.LIVE)
    return {**installed(), second.name: second}


def rows_of(ledger: Ledger, schema: str) -> list[list[Any]]:
    """All rows of the generation, versions included, in an order of their own."""
    return [
        ledger.execute(f"SELECT t::text FROM {schema}.{table} t ORDER BY 1".encode()).fetchall()
        for table in ("traces", "spans")
    ]


class Forgetful:
    """Schema ids of a version that does not know SpanRecorded."""

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        entry = committed().by_id(schema_id)
        return None if entry is None or entry.event_type == "SpanRecorded" else entry

    def latest(self, event_type: str) -> RegisteredSchema:
        return committed().latest(event_type)


def older() -> Store:
    """A worker that does not know SpanRecorded yet."""
    return Store(installed(), Codec(Forgetful()))


def fact(cls: type[RecordRetried] | type[RecordDiscarded], offset: int, at: int, again: int = 0) -> Record:
    """The record at `at` that settles the one at `offset`."""
    event: Event = cls(
        aggregate_id=EVENTS[offset].aggregate_id, occurred_at=NOW + again, source="test",
        record_topic=TRACES.name, record_offset=offset,
    )  # fmt: skip
    return record(event, at)


def commit(connection: Connection[Any], store: Store, one: Batch) -> list[Outcome]:
    return store.commit(connection, store.prepare(one))


def commit_records(ledger: Ledger, store: Store, records: list[Record]) -> None:
    commit(ledger, store, batch(records))


def states_with(ledger: Ledger, **policy: Any) -> StateStore:
    states = StateStore(Folding(each, SnapshotPolicy(**policy)) for each in (TraceAggregate, ServiceAggregate))
    states.register(ledger)
    return states


OF_TOMORROW = b"\0" + (1_400_009_999).to_bytes(4, "big")
