"""Conditional topics: the log arbitrates appends that expect a version, and the first verdict is final."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Cursor
from sqlalchemy import BigInteger, Column, MetaData, Table

from spanfold.language.events import RecordDiscarded, RecordRetried, TraceCreated, TraceFailed
from spanfold.language.ids import event_id
from spanfold.language.settings import Settings
from spanfold.language.topics import Topic, TopicKind, TopicOnBroker
from spanfold.postgres.copying import CopyTarget
from spanfold.projections.commit.store import Store
from spanfold.projections.facts import Fact
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import View, installed
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.stores import Forgetful
from tests.support.strategies import NOW, Record, batch, record

ORDERS = Topic("test.orders", TopicKind.CONDITIONAL, ("TraceCreated", "TraceFailed", "SpanRecorded"))


class Seen:
    """A projection that keeps what it was given, in the order in which it was given."""

    name, fold_version, topics, metadata = "seen", 1, (ORDERS,), MetaData()
    views: Sequence[View] = ()
    table = Table("seen", metadata, Column("kafka_offset", BigInteger))

    def fold(self, facts: Sequence[Fact]) -> list[int]:
        return [offset for offset, _, _ in facts]

    def combine(self, one: list[int], other: list[int]) -> list[int]:
        return one + other

    def merge(self, cursor: Cursor[Any], schema: str, partial: list[int], partition: int) -> None:
        CopyTarget(self.table).copy(cursor, schema, ((offset,) for offset in partial))


PROJECTIONS: dict[str, Any] = {"seen": Seen()}


@pytest.fixture
def orders(ledger: Ledger, prepared_topics: dict[str, TopicOnBroker], stack_settings: Settings) -> Ledger:
    """A database that knows the topic test.orders and the projection `seen`."""
    found = [*prepared_topics.values(), TopicOnBroker(ORDERS, "orders", "id", 1)]
    assert stack_settings.postgres_dsn
    lifecycle.prepare(stack_settings.postgres_dsn, found, {**installed(), **PROJECTIONS})
    return ledger


def append(
    offset: int, key: str, expected: int | None = None, *, event: int | None = None, failed: bool = False
) -> Record:
    """An append; `event` numbers its id, the offset unless it is said."""
    number = offset if event is None else event
    said: dict[str, Any] = {
        "aggregate_id": key, "occurred_at": NOW, "source": "test", "event_id": event_id(NOW, str(number)),
    }  # fmt: skip
    written = record(
        TraceFailed(error="no", end_time=NOW, **said)
        if failed
        else TraceCreated(service_name="s", operation_name="o", start_time=NOW, **said),
        offset,
    )
    headers = [*written.headers, *([("expected_version", str(expected).encode())] if expected is not None else [])]
    return replace(written, headers=headers)


def settle(cls: Any, offset: int, at: int, key: str) -> Record:
    return record(
        cls(aggregate_id=key, occurred_at=NOW + at, source="test", record_topic=ORDERS.name, record_offset=offset), at
    )


def commit(ledger: Ledger, records: Sequence[Record], store: Store | None = None) -> None:
    store = store or Store(PROJECTIONS)
    store.commit(ledger, store.prepare(replace(batch(records), topic=ORDERS)))


def verdicts(ledger: Ledger) -> list[str]:
    rows = ledger.execute("SELECT verdict FROM spanfold.verdicts WHERE topic = 'test.orders' ORDER BY kafka_offset")
    return [verdict for (verdict,) in rows]


def seen(ledger: Ledger) -> list[int]:
    return [offset for (offset,) in ledger.execute("SELECT kafka_offset FROM seen_g1.seen")]


def test_the_first_that_expects_the_version_wins(orders: Ledger) -> None:
    commit(orders, [append(0, "a", 0), append(1, "a", 0), append(2, "a", 1), append(3, "b", 1), append(4, "b", 0)])
    assert verdicts(orders) == ["accepted", "conflict", "accepted", "conflict", "accepted"]
    assert seen(orders) == [0, 2, 4]
    heads = orders.execute("SELECT aggregate_id, version FROM spanfold_core.heads ORDER BY 1").fetchall()
    assert heads == [("a", 2), ("b", 1)]


def test_without_an_expectation_an_append_takes_the_next_version(orders: Ledger) -> None:
    commit(orders, [append(0, "a"), append(1, "a"), append(2, "a", 2)])
    assert verdicts(orders) == ["accepted"] * 3
    rows = orders.execute("SELECT version FROM spanfold.journal WHERE topic = 'test.orders' ORDER BY kafka_offset")
    assert [version for (version,) in rows] == [1, 2, 3]


def test_the_first_verdict_on_an_event_id_is_final_also_a_rejection(orders: Ledger) -> None:
    commit(orders, [append(0, "a", 5, event=7)])
    commit(orders, [append(1, "a"), append(2, "a", 1, event=7)])
    commit(orders, [append(3, "a", 1, event=8), append(4, "a", 2, event=8)])
    assert verdicts(orders) == ["conflict", "accepted", "duplicate", "accepted", "duplicate"]
    decided = orders.execute(
        "SELECT kafka_offset, verdict, version FROM spanfold_core.first_verdicts ORDER BY 1"
    ).fetchall()
    assert decided == [(0, "conflict", None), (1, "accepted", 1), (3, "accepted", 2)]


@pytest.mark.parametrize("said", [b"", b"-1", b"1.0", b" 1", b"x", b"\xd9\xa1", b"1" * 19])
def test_an_expectation_that_is_no_number_is_malformed(orders: Ledger, said: bytes) -> None:
    bad = append(0, "a")
    commit(orders, [replace(bad, headers=[*bad.headers, ("expected_version", said)]), append(1, "a", 0)])
    assert verdicts(orders) == ["malformed", "accepted"]


def test_nothing_is_too_old_for_a_conditional_topic(orders: Ledger) -> None:
    commit(orders, [replace(append(0, "a"), log_time_ms=NOW // 1000 + 400 * 86_400_000)])
    assert verdicts(orders) == ["accepted"]


def test_what_is_too_old_for_postgres_is_accepted_and_parked(orders: Ledger) -> None:
    old = append(0, "a", 0)
    headers = [(name, b"-900000000000000000" if name == "occurred_at" else value) for name, value in old.headers]
    commit(orders, [replace(old, headers=headers), append(1, "a", 1), append(2, "b", 0)])
    assert verdicts(orders) == ["accepted"] * 3
    assert states(orders) == [(0, "contradiction", "parked"), (1, "behind", "parked")]
    assert seen(orders) == [2]


def told(log: Sequence[tuple[str, int | None, int]]) -> list[str]:
    """The verdicts of a log of (key, expected version, event), by the rules' own words."""
    heads: dict[str, int] = {}
    had: set[int] = set()
    said = []
    for key, expected, event in log:
        if event in had:
            said.append("duplicate")
        elif expected is not None and expected != heads.get(key, 0):
            said.append("conflict")
        else:
            said.append("accepted")
            heads[key] = heads.get(key, 0) + 1
        had.add(event)
    return said


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    log=st.lists(
        st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=12
    ),
    size=st.integers(1, 5),
)
def test_any_cut_into_batches_gives_the_same_verdicts(
    orders: Ledger, log: list[tuple[str, int | None, int]], size: int
) -> None:
    for table in ("journal_orders", "first_verdicts", "heads", "rejected"):
        orders.execute(f"DELETE FROM spanfold_core.{table}".encode())
    orders.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")
    records = [append(offset, key, expected, event=event) for offset, (key, expected, event) in enumerate(log)]
    for at in range(0, len(records), size):
        commit(orders, records[at : at + size])
    assert verdicts(orders) == told(log)


# Parked records hold their aggregate up


def states(ledger: Ledger) -> list[tuple[int, str, str]]:
    rows = ledger.execute("SELECT kafka_offset, reason, state FROM spanfold.parked_records ORDER BY 1")
    return list(rows)


class NoFailures(Forgetful):
    """Schema ids of a version that does not know TraceFailed."""

    def by_id(self, schema_id: int) -> Any:
        entry = Codec()._ids.by_id(schema_id)
        return None if entry is None or entry.event_type == "TraceFailed" else entry


HELD_UP = [append(0, "a"), append(1, "a", failed=True), append(2, "a"), append(3, "b"), append(4, "a")]


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_a_parked_record_parks_its_aggregates_later_ones_until_it_is_retried(orders: Ledger, size: int) -> None:
    older = Store(PROJECTIONS, Codec(NoFailures()))
    log = [*HELD_UP, append(5, "b")]
    for at in range(0, len(log), size):
        commit(orders, log[at : at + size], older)
    assert seen(orders) == [0, 3, 5]
    assert states(orders) == [(1, "unknown_schema", "parked"), (2, "behind", "parked"), (4, "behind", "parked")]
    commit(orders, [settle(RecordRetried, 1, 6, "a"), append(7, "a")])
    assert seen(orders)[3:] == [1, 2, 4, 7]
    assert {state for _, _, state in states(orders)} == {"retried"}
    assert verdicts(orders) == ["accepted"] * 8


def test_a_discarded_record_releases_what_was_parked_behind_it(orders: Ledger) -> None:
    commit(orders, HELD_UP, Store(PROJECTIONS, Codec(NoFailures())))
    commit(orders, [append(5, "a"), settle(RecordDiscarded, 1, 6, "a"), append(7, "a")])
    assert seen(orders) == [0, 3, 2, 4, 5, 7]
    assert states(orders)[0] == (1, "unknown_schema", "discarded")


def test_only_the_earliest_parked_record_of_an_aggregate_can_be_retried(orders: Ledger) -> None:
    log = [append(0, "a", failed=True), append(1, "a"), append(2, "a", failed=True), append(3, "a")]
    commit(orders, log, Store(PROJECTIONS, Codec(NoFailures())))
    commit(orders, [settle(RecordRetried, 2, 4, "a"), settle(RecordRetried, 1, 5, "a")])
    assert seen(orders) == []
    assert {state for _, _, state in states(orders)} == {"parked"}
    commit(orders, [settle(RecordRetried, 0, 6, "a")])
    assert seen(orders) == [0, 1, 2, 3]


def test_a_released_record_that_cannot_be_read_stays_parked_for_its_own_reason(orders: Ledger) -> None:
    older = Store(PROJECTIONS, Codec(NoFailures()))
    commit(orders, [append(0, "a", failed=True), append(1, "a"), append(2, "a", failed=True), append(3, "a")], older)
    commit(orders, [settle(RecordRetried, 2, 4, "a")], older)
    commit(orders, [settle(RecordDiscarded, 0, 5, "a")], older)
    assert seen(orders) == [1]
    assert states(orders) == [
        (0, "unknown_schema", "discarded"), (1, "behind", "retried"), (2, "unknown_schema", "parked"), (3, "behind", "parked"),
    ]  # fmt: skip
    commit(orders, [settle(RecordRetried, 2, 6, "a")])
    assert seen(orders) == [1, 2, 3]
