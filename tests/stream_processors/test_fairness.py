"""A worker that has more than it can do takes all of its partitions forward, none before another."""

from typing import Any

import psycopg

from spanfold.language.settings import Settings
from tests.support.load import Load
from tests.support.waiting import until
from tests.support.workers import Start

SLOW = """
import time
from spanfold.projections.commit import store
from spanfold.language.settings import Settings
from spanfold.bootstrap import run_projector

class Slow(store.Store):
    def commit(self, connection, prepared):
        time.sleep(0.05)
        return super().commit(connection, prepared)

store.Store = Slow
run_projector(Settings())
"""
"""The worker, on a slow database."""

LOADED = ("spanfold.traces", "spanfold.metrics", "spanfold.logs")

ROUNDS = 3


def positions(ledger: psycopg.Connection[Any]) -> dict[tuple[str, int], int]:
    rows = ledger.execute("SELECT topic, partition, next_offset FROM spanfold.checkpoints WHERE projection = 'journal'")
    return {(topic, partition): offset for topic, partition, offset in rows if topic in LOADED}


def test_every_partition_moves_on_while_the_load_goes_on(
    stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start
) -> None:
    load = Load(stack_settings, seed=1, least=1_000_000, per_second=400, clean=True)
    load.start()
    worker = start(program=("-c", SLOW))
    try:
        for _ in range(ROUNDS):
            before = positions(ledger)
            assert len(before) == len(LOADED) * stack_settings.partitions

            def behind(before: dict[tuple[str, int], int] = before) -> list[tuple[str, int]]:
                now = positions(ledger)
                return [place for place, offset in before.items() if now[place] <= offset]

            until(lambda: not behind(), "every partition has moved", behind)
    finally:
        load.abandon()
    assert worker.stop() == 0
