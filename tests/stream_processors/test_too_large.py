"""Values that are larger than a worker keeps: parked with size and hash, and folded once they are retried with more room."""

import dataclasses
import hashlib

import psycopg
import pytest

from spanfold.language.errors import InvalidInput, Misconfigured, NotFound
from spanfold.language.events import TraceCompleted, TraceEvent
from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation
from spanfold.operations.parked import Filters, retry_parked, show_parked
from spanfold.schemas.codec import Codec
from spanfold.stream_processors.rebuild.rebuild import verify
from tests.support.commands import json_of
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.publishing import publish_all
from tests.support.stories import stories
from tests.support.tables import checksums
from tests.support.workers import SNAPSHOTS, Start, folded_to_the_end

LIMIT = 2_000

pytestmark = pytest.mark.timeout(300)


def with_large(events: list[TraceEvent]) -> tuple[list[TraceEvent], TraceCompleted]:
    """The events, one of which has become larger than LIMIT."""
    at, before = next((index, event) for index, event in enumerate(events) if isinstance(event, TraceCompleted))
    large = dataclasses.replace(before, status="x" * 3 * LIMIT, event_id=b"")
    return [*events[:at], large, *events[at + 1 :]], large


def tables(ledger: Ledger) -> dict[str, tuple[int, int]]:
    sums = checksums(ledger)
    del sums["parked_records"]
    return sums


def test_a_value_that_is_too_large_is_folded_when_it_is_retried_under_a_larger_limit(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events, large = with_large(list(stories(30)))
    value = Codec().encode(large.event_type, large.as_fields())
    publish_all(stack_settings, events)
    worker, snapshots = start(max_value_bytes=LIMIT), start(max_value_bytes=LIMIT, program=SNAPSHOTS)
    folded_to_the_end(ledger, worker)

    small = stack_settings.model_copy(update={"max_value_bytes": LIMIT})
    (listed,) = json_of(stack_settings, "parked", "list")
    position = listed["position"]
    assert (listed["reason"], listed["payload_bytes"], listed["value_bytes"]) == ("too_large", 1024, len(value))
    assert hashlib.sha256(value).hexdigest() in listed["detail"]
    parked = show_parked(Installation(stack_settings), position)
    assert parked.payload == value[:1024]
    assert parked.decoded.event_type == "TraceCompleted"
    assert parked.decoded.error == "only the beginning of the value is kept here; a retry fetches the rest"

    with pytest.raises(InvalidInput, match=r"more than SPANFOLD_MAX_VALUE_BYTES \(2,000\): raise it for this command"):
        retry_parked(Installation(small), [position])
    report = retry_parked(Installation(small), filters=Filters(reason=None, topic="traces"))
    assert (report.appended, len(report.remarks)) == (0, 1)
    report = retry_parked(Installation(stack_settings), [position])
    assert (report.appended, report.retried) == (1, 1)
    folded_to_the_end(ledger, worker)
    snapshots.check()

    # rebuilds with any limit have the same rows, and so has a worker that had room from the start
    with at_work(small) as context:
        assert all(each.equal for each in verify(context, 1).parity)
    assert worker.stop() == 0
    other = start(second_settings)
    with psycopg.connect(str(second_settings.postgres_dsn), autocommit=True) as second_ledger:
        folded_to_the_end(second_ledger, other)
        assert tables(ledger) == tables(second_ledger)


def test_a_retry_says_what_is_wrong_when_the_log_lacks_the_bytes(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events, _ = with_large(list(stories(30)))
    publish_all(stack_settings, events)
    worker = start(max_value_bytes=LIMIT)
    folded_to_the_end(ledger, worker)
    (listed,) = json_of(stack_settings, "parked", "list")
    ledger.execute("UPDATE spanfold_core.parked SET value_sha256 = %s", (b"other",))
    with pytest.raises(Misconfigured, match="another record there than the one that was parked"):
        retry_parked(Installation(stack_settings), [listed["position"]])
    ledger.execute("UPDATE spanfold_core.parked SET kafka_offset = 9999")
    with pytest.raises(NotFound, match=r"and not this record, so its bytes are gone"):
        retry_parked(Installation(stack_settings), [listed["position"].split("@")[0] + "@9999"])
