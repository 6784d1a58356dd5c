"""Kafka or Postgres is away for longer than anybody's patience: the workers wait, and go on where they were."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.injuries import Scene
from tests.faults.schedule import Plan, conclude, stage
from tests.support.victims import Process, Servers

AWAY_S = 10

MANY_LINES = 400
"""aiokafka alone would write a hundred a second."""

PLAN = Plan(104, workers=1, batch_records=200, events=8_000)


@pytest.mark.parametrize(
    ("server", "number"),
    [
        (lambda servers: servers.postgres, signal.SIGINT),
        (lambda servers: servers.brokers[1], signal.SIGTERM),
    ],
    ids=["Postgres", "Kafka"],
)
def test_a_server_that_is_away_for_ten_seconds_costs_nothing_and_no_restart(
    victims: Servers, server: Callable[[Servers], Process], number: signal.Signals
) -> None:
    away = server(victims)
    with stage(victims, PLAN) as (scene, load, report):
        load.start()
        scene.workers.settled(PLAN.workers)
        away.end(number, within_s=60)
        time.sleep(AWAY_S)
        away.start().await_ready()
        load.finish()
        conclude(scene, load, report)
        assert len(scene.workers.running) == len(scene.workers.all) == PLAN.workers
        lines = len(scene.workers.all[0].output().splitlines())
        print(f"the worker wrote {lines} lines while {away.program.name} was away for {AWAY_S} s")
        assert lines < MANY_LINES, scene.workers.all[0].output()[-10_000:]
    assert report.ok, report
    assert (report.lost, report.doubled, report.ended_by_themselves, report.not_acknowledged) == (0, 0, 0, 0)


def test_sigterm_ends_a_worker_within_15_s_while_postgres_is_away(victims: Servers) -> None:
    with stage(victims, PLAN) as (scene, load, report):
        load.start()
        scene.workers.settled(PLAN.workers)
        worker = scene.any_worker()
        victims.postgres.end(signal.SIGQUIT)
        try:
            _await_retry(scene)
            assert worker.process.end(signal.SIGTERM, within_s=15) == 0, worker.output()
        finally:
            victims.postgres.start().await_ready()
        worker.may_end = True
        scene.workers.start()
        load.finish()
        conclude(scene, load, report)
    assert report.ok, report


def _await_retry(scene: Scene) -> None:
    [worker] = scene.workers.all
    deadline = time.monotonic() + 30
    while not worker.times("postgres_retry"):
        assert time.monotonic() < deadline, worker.output()
        time.sleep(0.05)
