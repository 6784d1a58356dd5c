"""A pruning beside workers, and one that is killed."""

import signal
import threading
import time
from typing import Any

import orjson
import psycopg
import pytest

from spanfold.language.topics import LOGS, METRICS, TRACES
from spanfold.projections.retention.rules import late_days
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.prune.installation import HOUR, TODAY, Place, asked, of_day, variables_of, with_settings
from tests.support.commands import environment
from tests.support.generations import at_work
from tests.support.processes import run
from tests.support.publishing import publish
from tests.support.tables import rows
from tests.support.workers import Start, folded

pytestmark = pytest.mark.usefixtures("forkserver")

NAMED = {
    "log_retention_days": '{"spanfold.traces": 0, "spanfold.logs": 0, "spanfold.metrics": 0}',
    "journal_retention_days": '{"spanfold.traces": 0, "spanfold.logs": 0}',
    "table_retention_days": '{"spans": 0, "operation_minutes": 0, "service_dependencies": 0, "metric_points": 0,'
    ' "metric_minutes": 0, "logs": 0}',
}  # fmt: skip
ALL: dict[str, Any] = {
    "log": dict.fromkeys((TRACES.name, LOGS.name, METRICS.name), 0),
    "journal": dict.fromkeys((TRACES.name, LOGS.name), 0),
    "table": dict.fromkeys(
        ("spans", "operation_minutes", "service_dependencies", "metric_points", "metric_minutes", "logs"), 0
    ),
}

KILLED = """
import os, signal, sys
from spanfold.projections.retention import journal_days
from spanfold.cli import main, progress

left = int(sys.argv.pop(1))

def die():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Doomed(progress.Screen):
    def step(self, words):
        die()
        super().step(words)
    def advanced(self, *said):
        die()

progress.Screen = Doomed
for name in ("_detach", "_drop"):
    def step(*said, real=getattr(journal_days, name)):
        die()
        return real(*said)
    setattr(journal_days, name, step)
main()
"""
"""`spanfold …` that is killed as by kill -9 before its so many-th step."""


def test_a_pruning_that_is_killed_is_gone_on_with(old: Place) -> None:
    """Killed again and again, each time one step later, until it comes to its end."""
    before = old.plan(**ALL)
    env = environment(old.settings, **variables_of(NAMED))
    codes = []
    for left in (0, 1, 2, 3, 5, 8, 13, 21, 34, 10_000):
        done = run(["-c", KILLED, str(left), "prune"], env)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        codes.append(done.returncode)
    assert codes.count(-signal.SIGKILL) >= 5
    assert codes[-1] == 0
    # nothing is left to do, and what went is what had been planned
    after = old.plan(**ALL)
    assert [each for each in after if each.frees] == []
    begins = old.log_begins()
    for each in before:
        if each.kind == "log" and each.partition is not None:
            assert each.before == f"offset {begins[each.name, each.partition]}"
    late = late_days(TRACES)
    ((days, tables, pending),) = asked(
        old.ledger,
        """
        SELECT (SELECT count(*) FROM spanfold.journal WHERE occurred_at < to_timestamp(%s)),
               (SELECT count(*) FROM pg_class c
                 WHERE c.relname ~ '^journal_(traces|logs)_[0-9]+$' AND c.relkind = 'r'
                   AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)),
               (SELECT count(*) FROM pg_inherits WHERE inhdetachpending)
        """,
        ((TODAY - late * 24 * HOUR) / 1e6,),
    )
    assert (days, tables, pending) == (0, 0, 0)


def test_the_command_does_it_and_says_why_not_more(old: Place) -> None:
    done = with_settings(old, NAMED, "prune")
    assert done.returncode == 0, done.stderr
    print(done.stdout, done.stderr)
    for words in ("log spanfold.traces/0", "freed", "98 days", "table spans", "logs can't be rebuilt"):
        assert words in done.stdout, done.stdout
    again = with_settings(old, NAMED, "prune", "--json")
    assert again.returncode == 0, again.stderr
    told = orjson.loads(again.stdout)
    assert not told["dry_run"]
    assert all(each["records"] == 0 and each["days"] == 0 for each in told["parts"])
    assert {each["kind"] for each in told["parts"]} == {"log", "journal", "table"}
    assert all(each["held_by"] for each in told["parts"])


class Watch:
    """Looks at the workers' sessions all the time, and remembers for how long one waited for a lock, at most."""

    def __init__(self, dsn: str) -> None:
        self._dsn, self._over = dsn, threading.Event()
        self.longest_s, self.looks = 0.0, 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        since: dict[tuple[int, Any], float] = {}
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.is_set():
                now, self.looks = time.monotonic(), self.looks + 1
                waiting = {tuple(row) for row in connection.execute(WAITING)}
                since = {each: since.get(each, now) for each in waiting}
                self.longest_s = max([self.longest_s, *(now - began for began in since.values())])
                time.sleep(0.01)


WAITING = """
SELECT pid, xact_start FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name NOT LIKE 'spanfold prune%%'
   AND application_name NOT LIKE 'spanfold rebuild%%' AND pid <> pg_backend_pid()
"""


def test_workers_go_on_meanwhile(old: Place, start: Start) -> None:
    worker = start(old.settings)
    publish(old.settings, 500)
    folded(old.ledger, old.settings, worker)
    over = threading.Event()

    def load() -> None:
        seed = 1
        while not over.is_set():
            seed += 1
            publish(old.settings, 300, seed=seed)

    publisher = threading.Thread(target=load)
    publisher.start()
    try:
        with Watch(str(old.settings.postgres_dsn)) as watch:
            for _ in range(3):
                old.take_states()
                old.prune(**ALL)
    finally:
        over.set()
        publisher.join()
    folded(old.ledger, old.settings, worker)
    print(f"a worker waited for a lock for {watch.longest_s * 1000:.0f} ms at most, of {watch.looks} looks")
    assert watch.longest_s < 10  # a lock is tried for 200 ms; the rest is for a machine that stands still
    assert worker.process.poll() is None
    assert "rror" not in worker.output(), worker.output()
    assert min(old.log_begins()[TRACES.name, partition] for partition in range(4)) > 0
    assert worker.stop() == 0


def test_after_it_tables_are_rebuilt_from_snapshots_and_the_same(old: Place) -> None:
    old.prune(**ALL)
    before = rows(old.ledger)
    refused = with_settings(old, {}, "rebuild", "traces")
    assert refused.returncode == 3, refused.stdout
    assert "`spanfold rebuild traces --from-snapshot` starts from" in refused.stderr
    with at_work(old.settings) as context:
        rebuilding.abort(context)
        assert all(each.equal for each in rebuilding.verify(context, 1, from_snapshot=True).parity)
        result = rebuilding.rebuild(context, 1, from_snapshot=True)
        assert all(each.equal for each in result.parity)
    assert rows(old.ledger) == before
    # what comes now meets rows that are as they were
    old.publish(of_day(-1))
    assert asked(old.ledger, "SELECT count(*) FROM spanfold.traces") == [(88,)]
