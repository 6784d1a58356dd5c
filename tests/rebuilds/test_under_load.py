"""A rebuild while events come by the thousand and people query: nobody sees an error, an empty table or a shrinking one."""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from spanfold.language.settings import Settings
from tests.faults import reference
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, leftovers, states
from tests.support.load import Load
from tests.support.processes import SPANFOLD, Program
from tests.support.waiting import until
from tests.support.workers import Start, folded

EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "40000"))
PER_SECOND = 3000
THOROUGH = "SPANFOLD_TEST_FAULTS" in os.environ
LONG_SELECT_S = 20 if THOROUGH else 6
"""Several times as long as a swap waits for readers of the views."""
REPEATABLE_READ_S = 30 if THOROUGH else 0
"""How long old snapshots stay at least."""

COUNT = "SELECT count(*) FROM spanfold.traces"


class Reader(threading.Thread):
    """Asks again and again until it is stopped; keeps the counts that it was given, and what went wrong."""

    def __init__(self, dsn: str, ask: Callable[[psycopg.Connection[Any]], int]) -> None:
        super().__init__(daemon=True)
        self.counts: list[int] = []
        self.error: BaseException | None = None
        self._dsn, self._ask, self._over = dsn, ask, threading.Event()

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._over.wait(0.01):
                    self.counts.append(self._ask(connection))
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._over.set()
        self.join(60)
        assert self.error is None, self.error
        assert self.counts
        assert all(a <= b for a, b in zip(self.counts, self.counts[1:], strict=False)), "the table has shrunk"
        assert self.counts[0] > 0


def one(connection: psycopg.Connection[Any], query: str, *, prepare: bool = False) -> int:
    row = connection.execute(query.encode(), prepare=prepare).fetchone()
    assert row
    return int(row[0])


def prepared(connection: psycopg.Connection[Any]) -> int:
    """A statement that names its columns, prepared once; it counts what it returns."""
    query = "SELECT trace_id, service_name, status, duration_ms, tags FROM spanfold.traces WHERE version >= 0"
    return len(connection.execute(query, prepare=True).fetchall())


class OldSnapshot(threading.Thread):
    """A REPEATABLE READ transaction that stays open until it is `end`ed; it reads the view only then, unless `at_once`."""

    def __init__(self, dsn: str, *, at_once: bool) -> None:
        super().__init__(daemon=True)
        self.counts: list[int] = []
        self.pid = 0
        self._dsn, self._at_once, self._over = dsn, at_once, threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, application_name="an old snapshot") as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT count(*) FROM spanfold.error_logs")
            if self._at_once:
                self.counts.append(one(connection, COUNT))
            self.pid, began = connection.info.backend_pid, time.monotonic()
            self._over.wait()
            time.sleep(max(REPEATABLE_READ_S - (time.monotonic() - began), 0))
            self.counts.append(one(connection, COUNT))

    def end(self) -> None:
        self._over.set()
        self.join(60)


def rebuilt_once_it_waits_for(settings: Settings, old: Sequence[OldSnapshot], folder: Path) -> Any:
    """What the rebuild tells programs. The old snapshots end when it has said of each that it waits for it."""
    log, output = folder / "rebuild.log", folder / "rebuild.json"
    argv = [*SPANFOLD, "rebuild", "traces", "--json"]
    with log.open("wb") as stderr, output.open("wb") as stdout:
        rebuild = Program(argv, env=environment(settings), stdout=stdout, stderr=stderr)

    def waits() -> bool:
        assert rebuild.poll() is None, f"the rebuild ended with {rebuild.returncode}: {log.read_text()}"
        return all(f"pid {each.pid} " in log.read_text() for each in old)

    try:
        until(waits, "that the rebuild waits for the old snapshots", log.read_text)
    finally:
        for each in old:
            each.end()
    assert rebuild.wait() == 0, log.read_text()
    return json.loads(output.read_text())


def test_a_rebuild_under_load_disturbs_nobody(
    stack_settings: Settings, ledger: Ledger, start: Start, tmp_path: Path
) -> None:
    dsn, worker = str(stack_settings.postgres_dsn), start()
    load = Load(stack_settings, 7, EVENTS, PER_SECOND)
    load.start()
    until(lambda: load.published > EVENTS / 4, "a quarter of the events", lambda: load.published)
    ledger.execute("CREATE SCHEMA mine")
    ledger.execute("CREATE VIEW mine.slow AS SELECT trace_id, duration_ms FROM spanfold.traces")
    until(lambda: one(ledger, COUNT), "the first traces")
    before = one(ledger, COUNT)

    readers = [
        Reader(dsn, lambda connection: one(connection, COUNT)),
        Reader(dsn, lambda connection: one(connection, "SELECT count(trace_id) FROM mine.slow")),
        Reader(dsn, prepared),
    ]
    old = [OldSnapshot(dsn, at_once=True), OldSnapshot(dsn, at_once=False)]
    long_select = Reader(dsn, lambda it: one(it, f"SELECT n FROM ({COUNT}) AS c (n), pg_sleep({LONG_SELECT_S})"))
    for thread in (*readers, *old, long_select):
        thread.start()
    until(lambda: all(each.pid for each in old), "the old snapshots")

    result = rebuilt_once_it_waits_for(stack_settings, old, tmp_path)
    print(json.dumps({name: value for name, value in result.items() if name != "parity"}, indent=1))
    for reader in readers:
        reader.stop()
    for each in old:
        assert all(count >= before > 0 for count in each.counts)
        assert len(set(each.counts)) == 1
        assert any(f"pid {each.pid} " in words for words in result["waited_for"]), result["waited_for"]
    long_select.stop()

    assert result["equal"]
    # how long depends on the machine, a second is for one that is not busy otherwise
    assert result["blocked_s"] < (1 if THOROUGH else result["total_s"] / 3)
    load.finish()
    folded(ledger, stack_settings, worker)
    wanted = reference.expected(reference.read_log(stack_settings), stack_settings.partitions)
    found = reference.compare(wanted, reference.shown(ledger))
    assert not found.differences, found.differences
    assert ("traces", 2, "live") in states(ledger)
    assert leftovers(ledger) == NOTHING
