"""Days of a journal go when no event of theirs can be accepted any more; what is gone is told, and accepted never again."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from spanfold.adapters.telemetry_repository import KafkaTelemetryRepository
from spanfold.application.aggregates import TraceAggregate
from spanfold.application.domain import TraceId
from spanfold.application.event_store import Compacted, OutcomeForgotten
from spanfold.application.execution import load
from spanfold.bootstrap import event_store
from spanfold.language.errors import StoreUnavailable
from spanfold.language.events import DomainEvent
from spanfold.language.partitioning import partitions_of
from spanfold.language.topics import LOGS, TRACES
from spanfold.projections.commit.journal import Journal
from spanfold.projections.retention import journal_days
from spanfold.projections.retention.rules import late_days
from spanfold.projections.states.rows import SNAPSHOTS
from tests.prune.installation import DAY, TODAY, Place, asked, of_day, part, place, span, trace
from tests.support.commands import command

pytestmark = pytest.mark.usefixtures("forkserver")

LATE = late_days(TRACES)


def day(ago: int) -> str:
    return f"{datetime.fromtimestamp(TODAY / 1e6, UTC) - timedelta(days=ago):%Y%m%d}"


def events_of(ago: int) -> list[DomainEvent]:
    return [event for _, event in of_day(ago) if event.topic == TRACES]


def test_days_go_that_no_late_event_can_reach(old: Place) -> None:
    before = old.days()
    assert before[0] == day(130)
    parts = old.prune(journal={TRACES.name: 0})
    gone = part(parts, "journal", TRACES.name)
    # the last record is of today: of the day `LATE` days before today, an event might still come
    assert old.days() == [each for each in before if each >= day(LATE)]
    assert (gone.days, gone.before) == (130 - LATE, f"{datetime.strptime(day(LATE), '%Y%m%d'):%Y-%m-%d}")
    assert gone.held_by.startswith(f"an event may come {LATE} days late, margin included, and ")
    left = asked(old.ledger, "SELECT min(occurred_at) FROM spanfold.journal WHERE topic = 'spanfold.traces'")
    assert left[0][0].timestamp() * 1e6 >= TODAY - LATE * DAY
    assert old.days("logs")[0] == day(130)
    # once more there is nothing to do
    assert part(old.prune(journal={TRACES.name: 0}), "journal", TRACES.name).days == 0


def test_a_retention_keeps_more(old: Place) -> None:
    parts = old.prune(journal={TRACES.name: 60, LOGS.name: 200})
    assert old.days()[0] == day(60)
    assert part(parts, "journal", TRACES.name).held_by.startswith("60 days before the last record begin on ")
    assert part(parts, "journal", LOGS.name).days == 0


@pytest.mark.parametrize("owner", ["traces", SNAPSHOTS])
def test_whoever_stands_far_behind_keeps_the_days_that_it_may_need(old: Place, owner: str) -> None:
    ((at, log_time),) = asked(
        old.ledger,
        "SELECT kafka_offset, log_time FROM spanfold.journal WHERE topic = %s AND partition = 1 AND event_type = 'TraceCreated'"
        " AND log_time >= to_timestamp(%s) ORDER BY kafka_offset LIMIT 1",
        (TRACES.name, (TODAY - 51 * DAY) / 1e6),
    )
    place(old.ledger, owner, TRACES.name, 1, at)
    old.ledger.execute(
        "UPDATE spanfold_core.checkpoints SET log_time = %s WHERE (projection, topic, partition) = (%s, %s, 1)",
        (log_time, owner, TRACES.name),
    )
    parts = old.prune(journal={TRACES.name: 0})
    assert old.days()[0] == f"{log_time - timedelta(days=LATE):%Y%m%d}"
    assert f"is at {at} in {TRACES.name}/1, which is of" in part(parts, "journal", TRACES.name).held_by


def test_no_day_goes_of_which_a_snapshot_lacks_a_record(old: Place) -> None:
    """Offsets decide that, whatever the times of the checkpoint are."""
    ((offset, happened),) = asked(
        old.ledger,
        "SELECT kafka_offset, occurred_at FROM spanfold.journal WHERE topic = %s AND partition = 1"
        " AND occurred_at >= to_timestamp(%s) ORDER BY kafka_offset LIMIT 1",
        (TRACES.name, (TODAY - 70 * DAY) / 1e6),
    )
    place(old.ledger, SNAPSHOTS, TRACES.name, 1, offset)
    parts = old.prune(journal={TRACES.name: 0})
    assert old.days()[0] == f"{happened:%Y%m%d}"
    assert f"(fold version 1) is at {offset} in {TRACES.name}/1, and " in part(parts, "journal", TRACES.name).held_by


async def test_what_is_gone_is_told(old: Place) -> None:
    logged = next(event for _, event in of_day(60) if event.topic == LOGS)
    old.prune(journal={TRACES.name: 0, LOGS.name: 0})
    gone, kept = events_of(60)[0], events_of(10)[0]
    async with event_store(old.settings) as store:
        for event in (gone, kept):
            with pytest.raises(Compacted, match="are still kept: start from a snapshot") as refusal:
                await store.get_events(TRACES, event.aggregate_id)
            after = refusal.value.first_kept - 1
            assert after == mark_of(old, event.aggregate_id)
            told = (await store.get_events(TRACES, event.aggregate_id, after)).events
            its = [each for each in events_of(10) if each.aggregate_id == event.aggregate_id]
            assert [each.event for each in told] == its
            # by its state all of it is known, and its version too
            state = await store.get_snapshot(TRACES, event.aggregate_id, TraceAggregate.fold_version)
            assert state
            assert (await store.get_events(TRACES, event.aggregate_id, state.version)).version == state.version
            loaded = await load(store, TraceAggregate, event.aggregate_id)
            assert (loaded.state.status, len(loaded.state.spans)) == ("completed", 2)
            found = await KafkaTelemetryRepository(store).get_trace(TraceId(event.aggregate_id))
            assert found
            assert len(found.spans) == 2
        assert (await store.get_events(TRACES, "a trace that never was")).version == 0
        with pytest.raises(Compacted):
            await store.get_events(LOGS, logged.aggregate_id)
        with pytest.raises(OutcomeForgotten, match="no longer known"):
            await store.outcome_of(TRACES, gone.aggregate_id, gone.event_id)
        assert await store.outcome_of(TRACES, kept.aggregate_id, kept.event_id)
        unheard = span(kept.aggregate_id, "9", None, "shop", TODAY)
        assert await store.outcome_of(TRACES, kept.aggregate_id, unheard.event_id) is None
    said = command(old.settings, "trace", kept.aggregate_id)
    assert said.returncode == 0, said.stderr
    assert f"records below offset {mark_of(old, kept.aggregate_id)} may be missing here" in said.stderr
    said = command(old.settings, "trace", gone.aggregate_id)
    assert said.returncode == 1
    assert "the journal has no record of it" in said.stderr
    assert "have been pruned" in said.stderr


def mark_of(old: Place, trace_id: str) -> int:
    partition = int(partitions_of([trace_id.encode()], old.topics[TRACES.name].partitions)[0])
    ((mark,),) = asked(
        old.ledger,
        "SELECT complete_from_offset FROM spanfold.journal_retention WHERE (topic, partition) = (%s, %s)",
        (TRACES.name, partition),
    )
    return int(mark)


async def test_without_snapshots_nobody_knows_what_a_trace_had(old: Place) -> None:
    old.prune(journal={TRACES.name: 0})
    old.ledger.execute("DELETE FROM spanfold_core.checkpoints WHERE projection = %s", (SNAPSHOTS,))
    async with event_store(old.settings) as store:
        with pytest.raises(Compacted):
            await store.get_events(TRACES, "a trace that never was")


def test_what_comes_again_is_judged_right_before_and_after(old: Place) -> None:
    first = {each["event_id"]: each["verdict"] for each in verdicts(old)}
    assert set(first.values()) == {"accepted"}
    old.prune(journal={TRACES.name: 0})
    ends = old.log_ends()
    again = [*events_of(60), *events_of(LATE + 3), *events_of(10), *events_of(0)]
    new = [event for _, event in trace("late, but not too late", TODAY - 29 * DAY)]
    old.publish((TODAY + DAY // 24 + n, event) for n, event in enumerate([*again, *new]))
    judged = {
        str(each["event_id"]): each["verdict"]
        for each in verdicts(old)
        if each["kafka_offset"] >= ends[TRACES.name, each["partition"]]
    }

    def of(events: list[DomainEvent]) -> set[str]:
        return {judged[str(UUID(bytes=event.event_id))] for event in events if event.topic == TRACES}

    assert of(events_of(60)) == of(events_of(LATE + 3)) == {"expired"}
    assert of(events_of(10)) == of(events_of(0)) == {"duplicate"}
    assert of(new) == {"accepted"}
    assert old.days()[0] == day(LATE)


def verdicts(old: Place) -> list[dict[str, Any]]:
    with old.ledger.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM spanfold.verdicts WHERE topic = 'spanfold.traces'").fetchall()


def test_a_day_that_is_gone_is_not_attached_again(old: Place) -> None:
    old.prune(journal={TRACES.name: 0})
    # a worker that comes back from long ago prepares a batch that others have committed
    Journal(TRACES).prepare(old.ledger, [(TODAY - 80 * DAY) // 1000])
    assert old.days()[0] == day(LATE)


def test_an_old_transaction_keeps_a_day_and_nobody_else(old: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_days, "PATIENCE_S", 1.0)
    with psycopg.connect(str(old.settings.postgres_dsn)) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        count = "SELECT count(*) FROM spanfold.journal WHERE topic = 'spanfold.traces'"
        ((before,),) = reader.execute(count).fetchall()
        with pytest.raises(StoreUnavailable, match="run again to drop it"):
            old.prune(journal={TRACES.name: 0})
        assert day(130) in old.days()
        # it goes on seeing what it saw; new ones see what is left, and workers write
        assert reader.execute(count).fetchall() == [(before,)]
        began = time.monotonic()
        old.publish(trace("meanwhile", TODAY + DAY // 24))
        print(f"published and folded in {time.monotonic() - began:.1f} s")
    parts = old.prune(journal={TRACES.name: 0})
    assert part(parts, "journal", TRACES.name).days > 0
    assert old.days()[0] == day(LATE)
