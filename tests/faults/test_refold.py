"""Everything folded again, from the first offset, into an empty database: the same tables, verdicts included."""

import dataclasses
import uuid
from typing import Any

import psycopg

from spanfold.kafka.topics import ensure_topics
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.faults.injuries import Scene
from tests.faults.schedule import Plan, Report, conclude, folded_to_the_end, inflict, stage
from tests.faults.workers import Workers
from tests.support.victims import Servers

PLAN = Plan(105, batch_records=200, events=8_000)

VIEWS = (
    "traces", "spans", "operation_minutes", "service_dependencies", "metric_points", "metrics", "metric_minutes",
    "logs", "services", "journal", "verdicts", "parked_records", "checkpoints",
)  # fmt: skip


def test_a_refold_of_everything_gives_the_checksums_of_the_live_tables(victims: Servers) -> None:
    with stage(victims, PLAN) as (scene, load, report):
        load.start()
        scene.workers.settled(PLAN.workers)
        inflict(scene, report, "kill_worker_at_a_point")
        inflict(scene, report, "cut_after_commit")
        load.finish()
        conclude(scene, load, report)
        with scene.ledger() as ledger:
            live = checksums(ledger)
        again = dataclasses.replace(scene, workers=emptied(scene))
        try:
            again.workers.start()
            folded_to_the_end(again, Report(PLAN.seed))
        finally:
            again.workers.stop()
        with again.ledger() as ledger:
            assert checksums(ledger) == live
    assert report.ok, report
    assert all(rows for rows, _ in live.values()), live


def emptied(scene: Scene) -> Workers:
    """The same topics, another group, an empty database, and other batches."""
    name = f"r{uuid.uuid4().hex[:8]}"
    with psycopg.connect(scene.servers.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    settings = scene.workers.settings.model_copy(
        update={"postgres_dsn": scene.servers.dsn(name), "group": name, "batch_records": 3_000}
    )
    lifecycle.prepare(scene.servers.dsn(name), ensure_topics(settings).values(), installed())
    return Workers(scene.servers, settings)


def checksums(ledger: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Of each public table: how many rows, and the sum of the rows' hashes."""
    query = "SELECT count(*), coalesce(sum(hashtextextended(v::text, 0)::numeric), 0) FROM spanfold.{} v"
    return {
        view: ledger.execute(query.format(view).encode()).fetchone()  # type: ignore[misc]
        for view in VIEWS
    }
