"""`spanfold erase` on a real Kafka and Postgres: the trace stays gone, and the others are as if it had never been."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from spanfold.language.events import LogRecorded, SpanRecorded, TraceCompleted
from spanfold.language.settings import Settings
from tests.erasure.long_trace import NOW, TRACE, assert_nowhere, done, dumped, others, publish, story
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.erasure import tables_with
from tests.support.waiting import until
from tests.support.workers import Start, folded

pytestmark = pytest.mark.usefixtures("topics", "forkserver")

VIEWS: Mapping[str, Sequence[str]] = {
    "traces": ("version",),
    "spans": ("version",),
    "operation_minutes": (),
    "service_dependencies": (),
    "logs": ("version",),
    "metrics": ("version",),
    "metric_minutes": (),
}
"""What people see, and the columns that tell where in the log a row comes from."""


def shown(ledger: Ledger) -> dict[str, list[Any]]:
    """All rows of the views, but for where they come from in the log."""
    rows = {}
    for view, places in VIEWS.items():
        query = f"SELECT (to_jsonb(v) - %s::text[])::text FROM spanfold.{view} v ORDER BY 1"
        rows[view] = ledger.execute(query.encode(), (list(places),)).fetchall()
    return rows


@pytest.fixture
def without_it(stack_settings: Settings, topic_prefix: str, servers: Any) -> Iterator[Settings]:
    """Another log and another database, which the trace never comes to."""
    prefix, name = f"without.{topic_prefix}", f"without_{topic_prefix.rstrip('.')}"
    dsn = servers.postgres_dsn.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield stack_settings.model_copy(
            update={"topic_prefix": prefix, "postgres_dsn": dsn, "group": prefix.rstrip(".")}
        )
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_an_erased_trace_stays_gone_and_the_others_are_as_if_it_had_never_been(
    stack_settings: Settings, ledger: Ledger, start: Start, without_it: Settings, second_settings: Settings
) -> None:
    worker = start()
    before, after, trace = others(1500, 1), others(500, 2), story()
    publish(stack_settings, *before[:700], *trace[:9], *before[700:], *trace[9:])
    folded(ledger, stack_settings, worker)
    assert ledger.execute("SELECT span_count FROM spanfold.traces WHERE trace_id = %s", (TRACE,)).fetchone() == (12,)
    assert TRACE in dumped(stack_settings)
    moment = ledger.execute("SELECT now()::text").fetchone()
    assert moment

    said = done(stack_settings, "erase", TRACE, "--yes", "--why", "asked for")
    assert said["rows"] == {"traces": 1, "spans": 12, "logs": 3, "snapshots": 0}
    assert [each["position"].partition("/")[0] for each in said["erasures"]] == ["spanfold.traces", "spanfold.logs"]
    assert said["kept_in"] == []
    assert tables_with(ledger, TRACE) == []

    # it comes again: from its publisher, from another one a day later, and with a span that nobody knew
    late = SpanRecorded(
        aggregate_id=TRACE, occurred_at=NOW + 999, source="late", span_id="late", parent_span_id="1", start_time=NOW,
        end_time=NOW + 999, service_name="shop", operation_name="pay",
    )  # fmt: skip
    publish(stack_settings, *trace, late, *after)
    folded(ledger, stack_settings, worker)
    rejected = ledger.execute(
        "SELECT topic, count(*) FROM spanfold.verdicts WHERE verdict = 'erased' GROUP BY 1 ORDER BY 1"
    )
    assert rejected.fetchall() == [("spanfold.logs", 3), ("spanfold.traces", 15)]

    # the others are those of a log that never had it
    reference = start(without_it)
    publish(without_it, *before, *after)
    with psycopg.connect(str(without_it.postgres_dsn), autocommit=True) as other:
        wait_for_tables(other)
        folded(other, without_it, reference)
        assert shown(ledger) == shown(other)

    # and it is nowhere in the database, nor after a rebuild, in the past, or in a database that folds the log anew
    assert_nowhere(stack_settings, ledger)
    for projection in ("traces", "logs"):
        done(stack_settings, "verify", projection)
        done(stack_settings, "rebuild", projection)
    assert shown(ledger)["traces"]
    assert_nowhere(stack_settings, ledger)
    past = done(stack_settings, "as-of", moment[0], "--into", "past")
    assert past["erased"] == 1
    assert ledger.execute("SELECT count(*) > 0 FROM past.traces").fetchone() == (True,)
    assert_nowhere(stack_settings, ledger)
    anew = start(second_settings)
    with psycopg.connect(str(second_settings.postgres_dsn), autocommit=True) as second:
        folded(second, second_settings, anew)
        assert shown(second) == shown(ledger)
        assert tables_with(second, TRACE) == []
        every = "SELECT v::text FROM spanfold.verdicts v ORDER BY 1"
        assert second.execute(every).fetchall() == ledger.execute(every).fetchall()

    told = command(stack_settings, "trace", TRACE)
    assert told.returncode == 1
    assert f"trace {TRACE} was erased: {said['erasures'][0]['position']}" in told.stderr


def wait_for_tables(ledger: Ledger) -> None:
    until(lambda: ledger.execute("SELECT to_regclass('spanfold.service_dependencies')").fetchone() != (None,), "tables")


def test_it_asks_first_and_says_what_it_will_not_do(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    worker = start()
    error = LogRecorded(aggregate_id="shop", occurred_at=NOW, source="test", service_name="shop", body="no")
    publish(stack_settings, *story(), error)
    folded(ledger, stack_settings, worker)

    nobody = command(stack_settings, "erase", TRACE, stdin="")
    assert nobody.returncode == 2
    assert "pass --yes" in nobody.stderr
    no = command(stack_settings, "erase", TRACE, stdin="n\n")
    assert no.returncode == 1
    assert "spanfold.spans" in no.stderr
    service = command(stack_settings, "erase", "shop", "--yes")
    assert service.returncode == 2
    assert "is not a trace but a service" in service.stderr
    unknown = command(stack_settings, "erase", "nobody knows it", "--yes")
    assert unknown.returncode == 1
    assert "--even-if-unknown" in unknown.stderr
    ledger.execute("DELETE FROM traces_g1.spans WHERE trace_id = %s AND span_id = '3'", (TRACE,))
    gone = command(stack_settings, "erase", TRACE, "--yes")
    assert gone.returncode == 3
    assert "had 12 spans, but only 11 rows are left" in gone.stderr
    assert ledger.execute("SELECT count(*) FROM spanfold.erased").fetchone() == (0,)

    early = done(stack_settings, "erase", "still to come", "--yes", "--even-if-unknown")
    assert not early["erased_before"]
    again = done(stack_settings, "erase", "still to come")
    assert again["erased_before"]
    assert again["erasures"] == early["erasures"]
    publish(stack_settings, TraceCompleted(aggregate_id="still to come", occurred_at=NOW, source="test", end_time=NOW))
    folded(ledger, stack_settings, worker)
    assert ledger.execute("SELECT count(*) FROM spanfold.traces").fetchone() == (1,)
    said = command(stack_settings, "erase", "still to come", stdin="")
    assert "had been erased before" in said.stdout
    assert "spanfold prune" in said.stdout


def test_without_a_worker_it_says_that_the_fact_is_in_the_log(stack_settings: Settings, ledger: Ledger) -> None:
    late = command(stack_settings, "erase", TRACE, "--yes", "--even-if-unknown", "--timeout", "3")
    assert late.returncode == 4
    assert "everything is in the log, but not visible" in late.stderr


def test_an_old_database_says_so(stack_settings: Settings, ledger: Ledger) -> None:
    ledger.execute("DROP VIEW spanfold.erased")
    old = command(stack_settings, "erase", TRACE, "--yes")
    assert old.returncode == 3
    assert "spanfold migrate" in old.stderr
