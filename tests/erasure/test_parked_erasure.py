"""A TraceErased that was parked, by a worker that does not erase on its topic: a retry erases nothing, erasing again helps."""

from dataclasses import replace

import pytest

from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.events import RecordRetried, TraceErased
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.schemas.catalogue import RegisteredSchema, committed
from spanfold.schemas.codec import Codec
from tests.support.commands import Invoke
from tests.support.databases import Ledger
from tests.support.erasure import erased, tables_with
from tests.support.strategies import NOW, batch, record
from tests.support.ten_traces import LOG

TRACE = "trace 3"
AT = len(LOG)
"""Where the erasure lies that was parked."""


class Ignorant:
    """Schema ids without TraceErased."""

    def by_id(self, schema_id: int) -> RegisteredSchema | None:
        entry = committed().by_id(schema_id)
        return None if entry is None or entry.event_type == TraceErased.__name__ else entry

    def latest(self, event_type: str) -> RegisteredSchema:
        return committed().latest(event_type)


class WithoutErasures(Store):
    """The store of a worker that does not erase."""

    def __init__(self) -> None:
        super().__init__(installed(), Codec(Ignorant()))

    def prepare(self, batch: Batch, refused: PoisonRecord | None = None) -> Prepared:
        return replace(super().prepare(batch, refused), erasures=())


@pytest.fixture
def parked(ledger: Ledger) -> Ledger:
    """The trace is in the tables, and the erasure of it is parked."""
    store = WithoutErasures()
    store.commit(ledger, store.prepare(batch([*LOG, erased(TRACE, AT)])))
    assert row(ledger) == ("parked", "unknown_schema")
    return ledger


def row(ledger: Ledger) -> tuple[str, str] | None:
    query = "SELECT state, reason FROM spanfold.parked_records WHERE kafka_offset = %s"
    return ledger.execute(query, (AT,)).fetchone()


def retry(ledger: Ledger) -> None:
    """Commit a RecordRetried, which `spanfold parked retry` refuses to append."""
    said = {"aggregate_id": TRACE, "occurred_at": NOW, "source": "test"}
    event = RecordRetried(record_topic="spanfold.traces", record_offset=AT, **said)  # type: ignore[arg-type]
    store = Store(installed())
    store.commit(ledger, store.prepare(batch([record(event, AT + 1)])))


def test_retried_it_stays_parked_and_says_what_to_do(parked: Ledger) -> None:
    retry(parked)
    assert row(parked) == ("parked", "invalid")
    (detail,) = parked.execute("SELECT detail FROM spanfold.parked_records").fetchall()
    assert "erase the trace again with `spanfold erase`" in detail[0]


def test_erased_again_the_trace_is_gone(parked: Ledger) -> None:
    store = Store(installed())
    store.commit(parked, store.prepare(batch([erased(TRACE, AT + 1, again=1)])))
    assert row(parked) == ("erased", "unknown_schema")
    assert tables_with(parked, TRACE) == []


def test_the_command_does_not_retry_it(parked: Ledger, invoke: Invoke) -> None:
    refusal = f"is a TraceErased, which can't be retried: run `spanfold erase {TRACE!r}` again"
    named = invoke("parked", "retry", f"spanfold.traces/0@{AT}", "--yes")
    assert isinstance(named.exception, InvalidInput), named.output
    assert refusal in str(named.exception)
    filtered = invoke("parked", "retry", "--reason", "unknown_schema", "--yes")
    assert filtered.exit_code == 0, filtered.output
    assert filtered.stdout.startswith("nothing to do")
    assert refusal in filtered.stderr
