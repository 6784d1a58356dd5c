"""A log in whose midst one of ten traces is erased."""

from collections.abc import Sequence

from spanfold.language.events import SpanRecorded
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.store import Store
from tests.support.databases import Ledger
from tests.support.erasure import erased
from tests.support.strategies import NOW, Record, record, records_of
from tests.support.ten_traces import EVENTS, story

TRACE = "trace 3"
OTHERS = [event for event in EVENTS if event.aggregate_id != TRACE]
LATE = SpanRecorded(
    aggregate_id=TRACE, occurred_at=NOW + 40, source="test", span_id="late", parent_span_id="1", service_name="shop",
    operation_name="pay", start_time=NOW, end_time=NOW + 40,
)  # fmt: skip


def log() -> list[Record]:
    """All stories, the erasure of one in their midst, and then its records again, a late span and a second erasure."""
    records = [*records_of(EVENTS[:22]), erased(TRACE, 22), *records_of(EVENTS[22:], 23)]
    for event in (*story(3), LATE):
        records.append(record(event, len(records)))
    return [*records, erased(TRACE, len(records), again=1)]


LOG = log()


def commit(ledger: Ledger, store: Store, batches: Sequence[Batch]) -> None:
    for each in batches:
        store.commit(ledger, store.prepare(each))
