"""Old rows go and don't come back: rebuilt tables equal live ones, and no late event finds what it needs gone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spanfold.language.events import DomainEvent
from spanfold.language.progress import NullProgress
from spanfold.language.times import as_us
from spanfold.language.topics import TRACES
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild import as_of_schemas as past
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.prune.installation import DAY, HOUR, TODAY, Place, asked, hundred_days, part, span
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.tables import rows
from tests.support.workers import Start

pytestmark = pytest.mark.usefixtures("forkserver")

EVERY = dict.fromkeys(
    ("spans", "operation_minutes", "service_dependencies", "metric_points", "metric_minutes", "logs"), 0
)
LATE = 32
"""No event of the topics comes later than these days, margin included."""

TIMES = {
    "spans": "greatest(end_time, occurred_at)", "operation_minutes": "minute", "service_dependencies": "minute",
    "metric_points": "time", "metric_minutes": "minute", "logs": "occurred_at",
}  # fmt: skip
HOME = {"metric_points": "metrics", "metric_minutes": "metrics", "logs": "logs"}


def first_of(ledger: Ledger, table: str, generation: int = 1) -> datetime | None:
    """The time of the oldest row."""
    ((found,),) = asked(ledger, f"SELECT min({TIMES[table]}) FROM {HOME.get(table, 'traces')}_g{generation}.{table}")
    return found if isinstance(found, datetime) else None


def ago(days: int) -> datetime:
    return datetime.fromtimestamp(TODAY / 1e6, UTC) - timedelta(days=days)


def unequal(old: Place) -> dict[str, list[str]]:
    """The tables of which `verify` says that they are not what the log says."""
    found: dict[str, list[str]] = {}
    for name in installed():
        with at_work(old.settings, name) as context:
            parity = rebuilding.verify(context, 1).parity
        found |= {each.table: [str(said) for said in each.differences] for each in parity if not each.equal}
    return found


def test_rows_go_that_no_late_event_can_change_and_a_rebuild_does_not_bring_them_back(old: Place) -> None:
    parts = old.prune(table=EVERY)
    for table in EVERY:
        # seven days more for spans: a call may be found so much later
        days = LATE + 7 if table == "spans" else LATE
        wanted = min(each for each in range(100, -1, -5) if each <= days)
        assert first_of(old.ledger, table) is not None
        oldest = first_of(old.ledger, table)
        assert oldest is not None
        assert ago(days) <= oldest < ago(days - 5 - 1), (table, wanted)
        told = part(parts, "table", table)
        assert told.records > 0
        assert f"an event may come {LATE} days late, margin included" in told.held_by, told
    assert "rows that are up to 7 days older" in part(parts, "table", "spans").held_by
    assert asked(old.ledger, "SELECT count(*) FROM spanfold.traces") == [(84,)]
    before = rows(old.ledger)
    assert unequal(old) == {}
    for name in installed():
        with at_work(old.settings, name) as context:
            result = rebuilding.rebuild(context, 1)
            assert all(each.equal for each in result.parity)
    assert rows(old.ledger) == before
    with at_work(old.settings) as context:
        assert rebuilding.rollback(context, 1).generation == 1
    assert rows(old.ledger) == before
    assert all(part(old.plan(table=EVERY), "table", table).records == 0 for table in EVERY)


def test_a_rollback_to_what_was_never_trimmed_does_not_bring_rows_back(old: Place) -> None:
    with at_work(old.settings) as context:
        rebuilding.rebuild(context, 1)
    with old.planned(table={"spans": 60}) as found:
        found.run(NullProgress())
    assert any("generation traces/1 (previous) keeps its old rows" in words for words in found.remarks)
    before = rows(old.ledger)
    assert first_of(old.ledger, "spans", 1) < ago(99)  # type: ignore[operator]
    with at_work(old.settings) as context:
        rebuilding.rollback(context, 1)
    assert rows(old.ledger) == before
    assert first_of(old.ledger, "spans", 1) >= ago(60)  # type: ignore[operator]


def test_as_of_does_not_bring_them_back_either(old: Place) -> None:
    old.prune(table={"spans": 60})
    with at_work(old.settings) as context:
        past.create_schema(str(old.settings.postgres_dsn), "before", "a test")
        rebuilding.as_of(context, "before", past.offsets_at(context, as_us(ago(55))), 1)
    ((first, traces),) = asked(
        old.ledger, "SELECT min(s.end_time), (SELECT count(*) FROM before.traces) FROM before.spans s"
    )
    assert (first >= ago(60), traces) == (True, 4 * 9)


def test_a_table_keeps_its_days(old: Place) -> None:
    parts = old.prune(table={"metric_points": 90})
    assert first_of(old.ledger, "metric_points") >= ago(90)  # type: ignore[operator]
    assert first_of(old.ledger, "metric_minutes") < ago(99)  # type: ignore[operator]
    assert part(parts, "table", "metric_minutes").held_by == "no retention set"
    assert part(parts, "table", "metric_points").held_by.startswith("90 days before the last record, ")
    assert unequal(old) == {}


def test_a_generation_that_stands_behind_keeps_rows_that_it_may_change(old: Place) -> None:
    ((log_time,),) = asked(
        old.ledger,
        "UPDATE spanfold_core.checkpoints SET next_offset = next_offset - 1, log_time = log_time - interval '40 days'"
        " WHERE (projection, topic, partition) = ('traces', 'spanfold.traces', 2) RETURNING log_time",
    )
    parts = old.prune(table={"operation_minutes": 0})
    said = part(parts, "table", "operation_minutes")
    assert "generation traces/1 (live) is at" in said.held_by
    begins = (log_time - timedelta(days=LATE)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert said.before == f"minute {begins:%Y-%m-%d}"
    assert first_of(old.ledger, "operation_minutes") >= begins


def test_a_parked_record_keeps_the_rows_around_it(old: Place) -> None:
    happened = ago(77)
    old.ledger.execute(
        "INSERT INTO spanfold_core.parked (topic, partition, kafka_offset, reason, detail, event_id, event_type, aggregate_id,"
        " occurred_at, log_time, key, headers) SELECT topic, partition, kafka_offset, 'unreadable', 'x', event_id, event_type,"
        " aggregate_id, %s, log_time, '', '[]' FROM spanfold.journal WHERE topic = 'spanfold.traces' LIMIT 1",
        (happened,),
    )
    parts = old.prune(table={"operation_minutes": 0, "spans": 0})
    assert part(parts, "table", "operation_minutes").before == f"minute {happened:%Y-%m-%d}"
    assert part(parts, "table", "spans").before == f"end_time and occurred_at {ago(84):%Y-%m-%d}"
    assert "happened" in (words := part(parts, "table", "spans").held_by)
    assert "retry it or discard it" in words
    old.ledger.execute("UPDATE spanfold_core.parked SET settled_as = 'discarded', settled_offset = 1")
    assert part(old.prune(table={"spans": 0}), "table", "spans").before != part(parts, "table", "spans").before


def calls(old: Place) -> int:
    ((found,),) = asked(old.ledger, "SELECT sum(calls)::bigint FROM spanfold.service_dependencies")
    return int(found)


def test_calls_are_counted_right_however_late_their_other_half_comes(new: Place) -> None:
    """A parent is gone only when no child that is still to come may count with it."""
    old, log_time = new, TODAY + HOUR
    child = log_time - 30 * DAY  # just not expired
    at = child - 7 * DAY
    parents = [(at, span("late", "1", None, "shop", at)), (at, span("apart", "1", None, "shop", at))]
    old.publish([*hundred_days(), *parents])
    old.prune(table=EVERY)
    before = calls(old)
    old.publish([
        (log_time, span("late", "2", "1", "bank", child)), (log_time, span("apart", "2", "1", "bank", child + 1)),
    ])  # fmt: skip
    assert calls(old) == before + 1
    assert unequal(old) == {}
    with at_work(old.settings) as context:
        rebuilding.rebuild(context, 1)
    assert calls(old) == before + 1


def test_what_lies_about_its_time_goes_with_the_next_pruning_and_disturbs_no_comparison(old: Place) -> None:
    old.prune(table=EVERY)
    lies: list[tuple[int, DomainEvent]] = []
    for number, end in enumerate((0, TODAY - 90 * DAY, TODAY - 40 * DAY, TODAY + 400 * DAY)):
        said: dict[str, Any] = {"end_time": end, "start_time": end}
        at = TODAY + HOUR // 4 + number
        lies += [(at, span(f"trace 40 {number}", "9", "1", "post", at, **said)),
                 (at, span(f"trace 40 {number}", "0", None, "root", at, **said))]  # fmt: skip
    old.publish(lies)
    assert asked(old.ledger, "SELECT count(*) FROM spanfold.spans WHERE span_id IN ('9', '0')") == [(8,)]
    assert unequal(old) == {}
    assert part(old.prune(table=EVERY), "table", "spans").records == 0  # by their events' times they are of today
    assert unequal(old) == {}
    before = rows(old.ledger)
    with at_work(old.settings) as context:
        assert all(each.equal for each in rebuilding.rebuild(context, 1).parity)
    assert rows(old.ledger)["spans"] == before["spans"]


def test_a_trace_is_erased_also_when_old_spans_are_gone(old: Place, start: Start) -> None:
    old.prune(table={"spans": 0})
    start(old.settings)
    victims = ["trace 60 1", "trace 10 1"]
    for each in victims:
        done = command(old.settings, "erase", each, "--yes")
        assert done.returncode == 0, done.stderr
    assert asked(old.ledger, "SELECT count(*) FROM spanfold.spans WHERE trace_id = ANY (%s)", (victims,)) == [(0,)]
    assert unequal(old) == {}
    with at_work(old.settings) as context:
        assert all(each.equal for each in rebuilding.rebuild(context, 1).parity)


def test_a_table_of_a_projection_that_is_being_rebuilt_is_left_alone(old: Place) -> None:
    before = rows(old.ledger)
    with at_work(old.settings):
        parts = old.prune(table={"spans": 0})
    assert part(parts, "table", "spans").held_by.startswith("traces is being rebuilt, verified")
    assert rows(old.ledger) == before
    assert TRACES.window_days + TRACES.future_days + 1 == LATE


def test_rows_are_deleted_in_many_short_transactions(old: Place) -> None:
    count = "SELECT count(*) FROM traces_g1.operation_minutes"
    old.ledger.execute(
        "INSERT INTO traces_g1.operation_minutes SELECT 0, 's', n::text || repeat('x', 400), 'server', '',"
        " '2020-01-01', 1, 0, 1, ROW('{1}', '{1}')::spanfold.bucket_counts"
        " FROM generate_series(1, 40000) AS n"
    )
    ((before,),) = asked(old.ledger, count)
    left: list[int] = []
    ends: list[tuple[int, int]] = []

    class Counting(NullProgress):
        def advanced(self, done: int, total: int, unit: str) -> None:
            if unit == "pages of operation_minutes":
                ((rows_left,),) = asked(old.ledger, count)
                left.append(rows_left)
                ends.append((done, total))

    with old.planned(table={"operation_minutes": 0}) as found:
        found.run(Counting())
    assert len(left) > 2, left
    assert before - left[-1] >= 40_000
    assert ends[-1][0] == ends[-1][1]
    assert left[0] > left[-1]
