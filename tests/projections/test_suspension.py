"""A projection that fails is suspended alone, and says why; see tests/rebuilds/test_resume.py for how it catches up."""

import re
from typing import Any

import pytest
from psycopg import Connection
from psycopg.errors import DeadlockDetected, LockNotAvailable

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.language.events import TraceErased
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.operations.visibility import wait_until_visible
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.suspension import ProjectionFailed, suspend
from spanfold.projections.commit.topic_suspension import suspend_topic
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.failing import Fault, Own, raises, reason, runs
from tests.support.stores import Stop, commit, rows_of, with_second
from tests.support.strategies import NOW, batch, record
from tests.support.ten_traces import EVENTS, LOG
from tests.support.trace_rows import shown, told, verdicts


def positions(ledger: Ledger) -> dict[str, int]:
    query = "SELECT projection, next_offset FROM spanfold.checkpoints WHERE (topic, partition) = ('spanfold.traces', 0)"
    return dict(ledger.execute(query).fetchall())


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


FAULTS: dict[str, tuple[Fault | None, str]] = {
    "an error of the fold": (None, r"KeyError: 'sku' \(failing\.py:\d+, in fold\)"),
    "an error of the merge": (raises(ZeroDivisionError("by zero")), r"ZeroDivisionError: by zero \(failing"),
    "an error of spanfold's": (raises(Misconfigured("no")), r"Misconfigured: no "),
    "a value that is refused": (runs("SELECT 'x'::int"), r"InvalidTextRepresentation: invalid input syntax"),
    "a row that is refused": (runs("INSERT INTO second_g1.traces DEFAULT VALUES"), r"NotNullViolation"),
    "a table that is not there": (runs("SELECT FROM nowhere"), r'UndefinedTable: relation "nowhere" does not exist'),
    "a transaction that it ends": (lambda cursor: cursor.connection.commit(), r"ProgrammingError: .*commit"),
    "a slow statement": (runs("SELECT pg_sleep(60)"), r"TimeoutError: a statement took longer than 0\.5 s"),
    "a message that Postgres can't hold": (raises(ValueError("a\0b\ud800")), r"ValueError: a\\0b\\ud800 "),
    "a message that can't be read": (raises(Mute()), r"Mute: \(its message can't be read\)"),
    "a message without an end": (raises(ValueError("x" * 9_000_000)), r"ValueError: x{1000}… "),
    "a connection elsewhere": (
        lambda _: Connection.connect("host=127.0.0.1 port=1").close(), r"OperationalError: .*connection",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "why"), FAULTS.values(), ids=FAULTS)
def test_a_projection_that_fails_is_suspended_alone(
    ledger: Ledger, stack_settings: Settings, fault: Fault | None, why: str
) -> None:
    store = Store(with_second(stack_settings, Own(fault)), merge_timeout_s=0.5)
    commit(ledger, store, batch(LOG[:5]))
    (outcome,) = commit(ledger, store, batch(LOG[5:20]))
    assert (outcome.folded, outcome.parked) == (15, {})
    assert list(outcome.suspended) == ["second"]
    assert reason(ledger) == outcome.suspended["second"]
    where = "spanfold.traces/0, offsets 5 to 19" if why.startswith("Timeout") else "spanfold.traces/0@7"
    assert re.match(f"second failed at {where}: {why}", reason(ledger)), reason(ledger)
    # nobody waits for it, and nobody goes back for it
    assert commit(ledger, store, batch(LOG[20:])) == [Outcome(folded=len(LOG) - 20)]
    assert store.start_offsets(ledger.execute(store.checkpoints.encode()))["spanfold.traces", 0] == len(LOG)
    assert shown(ledger) == told(EVENTS)
    assert set(verdicts(ledger).values()) == {"accepted"}
    assert positions(ledger) == {"journal": len(LOG), "traces": len(LOG), "second": 5}


def test_an_error_that_may_pass_is_no_reason(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own(raises(DeadlockDetected("once")))
    store = Store(with_second(stack_settings, own))
    with pytest.raises(DeadlockDetected):
        commit(ledger, store, batch(LOG))
    assert (reason(ledger), positions(ledger)["journal"]) == ("", 0)
    own.repaired = True
    assert commit(ledger, store, batch(LOG)) == [Outcome(folded=len(LOG))]
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")


def test_a_lock_that_somebody_holds_is_waited_for(ledger: Ledger, stack_settings: Settings) -> None:
    store = Store(with_second(stack_settings, Own(runs("LOCK TABLE locked"))), merge_timeout_s=0.5)
    ledger.execute("CREATE TABLE locked ()")
    with Connection.connect(str(stack_settings.postgres_dsn)) as holder:
        holder.execute("LOCK TABLE locked")
        with pytest.raises(LockNotAvailable):
            commit(ledger, store, batch(LOG))
    assert commit(ledger, store, batch(LOG)) == [Outcome(folded=len(LOG))]


def test_a_constraint_that_is_checked_at_the_end_is_the_projections_own(
    ledger: Ledger, stack_settings: Settings
) -> None:
    fault = runs("INSERT INTO twice VALUES (1), (1)")
    store = Store(with_second(stack_settings, Own(fault)))
    ledger.execute("CREATE TABLE twice (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    (outcome,) = commit(ledger, store, batch(LOG))
    assert "UniqueViolation" in outcome.suspended["second"]
    assert shown(ledger) == told(EVENTS)


def test_a_commit_that_stops_has_suspended_nobody(ledger: Ledger, stack_settings: Settings) -> None:
    store = Store(with_second(stack_settings, Own()))

    def stop(step: str) -> None:
        if step == "before_commit":
            raise Stop

    store.reached = stop
    with pytest.raises(Stop):
        commit(ledger, store, batch(LOG))
    assert reason(ledger) == ""


def test_limits_of_one_merge_do_not_reach_the_next_statement(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own()
    own.repaired = True
    store, seen = Store(with_second(stack_settings, own), merge_timeout_s=0.5), list[Any]()

    def look(step: str) -> None:
        if step == "before_commit":
            seen.extend(ledger.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"))

    before = ledger.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')").fetchall()
    store.reached = look
    commit(ledger, store, batch(LOG))
    assert seen == before


def test_of_several_reasons_the_first_and_the_last_are_kept(ledger: Ledger, stack_settings: Settings) -> None:
    store = Store(with_second(stack_settings, Own()))
    commit(ledger, store, batch(LOG))
    first = reason(ledger)
    for why in ("one more", "the last"):
        with ledger.cursor() as cursor:
            suspend(cursor, "second", 1, ProjectionFailed(why))
    assert reason(ledger) == f"{first}; after that, the last"


def test_a_suspended_projection_forgets_an_erased_trace_at_once(ledger: Ledger, stack_settings: Settings) -> None:
    store = Store(with_second(stack_settings, Own()))
    commit(ledger, store, batch(LOG[:5]))
    commit(ledger, store, batch(LOG[5:]))
    assert reason(ledger)
    kept = "SELECT count(*) FROM second_g1.spans WHERE trace_id = 'trace 0'"
    assert ledger.execute(kept).fetchone() == (2,)
    erasing = TraceErased(aggregate_id="trace 0", occurred_at=NOW, source="test")
    commit(ledger, store, batch([record(erasing, len(LOG))]))
    assert ledger.execute(kept).fetchone() == (0,)


def test_nobody_waits_for_a_suspended_projection_and_a_suspended_topic_is_named(
    ledger: Ledger, stack_settings: Settings
) -> None:
    commit(ledger, Store(with_second(stack_settings, Own())), batch(LOG))
    assert reason(ledger)
    dsn = str(stack_settings.postgres_dsn)
    wait_until_visible(dsn, {(TRACES.name, 0): len(LOG)}, 0)
    suspend_topic(ledger, TRACES.name, "?")
    with pytest.raises(StoreUnavailable, match=r"40 of 41\. spanfold\.traces is suspended"):
        wait_until_visible(dsn, {(TRACES.name, 0): len(LOG) + 1}, 0)


def test_the_journal_is_not_suspended_for_spanfolds_own_refused_rows(ledger: Ledger, stack_settings: Settings) -> None:
    """A record that spanfold's own projection cannot store is parked; see test_store.py."""
    ledger.execute("ALTER TABLE traces_g1.spans ADD CHECK (span_id <> '2')")
    (*_, last) = commit(ledger, Store(installed()), batch(LOG[:4]))
    assert (last.parked, last.suspended) == ({"refused": 1}, {})
