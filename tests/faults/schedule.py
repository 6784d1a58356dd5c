"""One schedule: servers, workers and a load; the faults that its seed draws; then the tables are compared with the log.

The victims are projectors, whose read models are compared; or snapshot workers beside one projector, whose states, snapshots and
compacted topic are.
"""

import random
import threading
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import psycopg

from spanfold.kafka.log_ends import ends_of_log
from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.faults import injuries, instances, reference, states
from tests.faults.feeder_injuries import SNAPSHOT_FAULTS
from tests.faults.fickle import NAME, Fickle, create_switch
from tests.faults.fickle import differences as fickle_differences
from tests.faults.injuries import FAULTS, Scene
from tests.faults.proxy import Proxy
from tests.faults.suspensions import SUSPENSIONS
from tests.faults.workers import PROJECTOR, SNAPSHOTS, Role, Workers
from tests.support.load import Load
from tests.support.victims import Servers
from tests.support.waiting import ConditionNotMet, until

EVENTS: Final = 20_000
PER_SECOND: Final = 1_200.0
ALEMBIC: Final = threading.Lock()
"""It keeps its configuration in a module: one migration at a time."""


@dataclass(frozen=True)
class Plan:
    """What a seed stands for. `clean`: see Load. Snapshot workers take a snapshot after `every_records` of an aggregate."""

    seed: int
    brokers: int = 1
    workers: int = 2
    batch_records: int = 500
    faults: Sequence[str] = ()
    events: int = EVENTS
    clean: bool = False
    victims: Role = PROJECTOR
    every_records: int = 5
    suspensions: bool = False

    @classmethod
    def drawn(cls, seed: int, victims: Role = PROJECTOR, *, suspensions: bool = False) -> "Plan":
        """Three or four faults, no two of a kind; in every fifth schedule three brokers, one of which dies. With `suspensions`, a
        projection and a topic are suspended as well.
        """
        rng = random.Random(seed)
        brokers = 3 if seed % 5 == 4 else 1
        faults = rng.sample(sorted(FAULTS if victims is PROJECTOR else SNAPSHOT_FAULTS), rng.choice((3, 3, 4)))
        if brokers > 1 and "kill_broker" not in faults:
            faults[rng.randrange(len(faults))] = "kill_broker"
        for suspending in SUSPENSIONS if suspensions else ():
            faults.insert(rng.randrange(len(faults) + 1), suspending)
        workers, batch_records = rng.choice((2, 2, 3)), rng.choice((100, 500, 2000))
        every_records = rng.choice((2, 5, 20))
        return cls(
            seed, brokers, workers, batch_records, tuple(faults), victims=victims, every_records=every_records,
            suspensions=suspensions,
        )  # fmt: skip


@dataclass
class Report:
    """What a schedule did and found."""

    seed: int
    brokers: int = 1
    victims: str = PROJECTOR.name
    faults: list[tuple[float, str]] = field(default_factory=list)
    """Seconds from the start of the load, and what happened then; a line that begins with a space explains the one before."""
    events: int = 0
    records: int = 0
    acknowledged: int = 0
    not_acknowledged: int = 0
    workers: int = 0
    ended_by_themselves: int = 0
    duplicates: int = 0
    """Records that were judged so."""
    uncommitted: int = 0
    """Offsets of the log that no reader sees: aborted records, and the marks of transactions."""
    batches: int = 0
    redelivered: int = 0
    fenced: int = 0
    refolds: int = 0
    retries: int = 0
    lost: int = 0
    doubled: int = 0
    keys: int = 0
    """Of the compacted topic, whose last values were compared."""
    differences: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.differences and not self.error

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


@contextmanager
def stage(servers: Servers, plan: Plan, without: str = "") -> Iterator[tuple[Scene, Load, Report]]:
    """A database and topics of this schedule's own, its workers on their way, its load not yet begun."""
    name = f"f{uuid.uuid4().hex[:8]}"
    report = Report(plan.seed, plan.brokers, plan.victims.name)
    with psycopg.connect(servers.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    proxy = Proxy(servers.postgres_port)
    settings = Settings(
        home=servers.home,
        kafka_bootstrap=servers.bootstrap,
        postgres_dsn=servers.dsn(name, proxy.port),
        topic_prefix=f"{name}.",
        group=name,
        session_timeout_s=6.0,
        batch_records=plan.batch_records,
        replication_factor=plan.brokers,
        min_insync_replicas=min(2, plan.brokers),
    )
    topics = ensure_topics(settings)
    with ALEMBIC:
        projections = {**installed(), NAME: Fickle()} if plan.suspensions else installed()
        lifecycle.prepare(servers.dsn(name), topics.values(), projections)
    if plan.suspensions:
        with psycopg.connect(servers.dsn(name), autocommit=True) as connection:
            create_switch(connection)
    begun = time.monotonic()
    workers, beside = Workers(servers, settings, without, fickle=plan.suspensions), None
    if plan.victims is SNAPSHOTS:
        beside = Workers(servers, settings.model_copy(update={"postgres_dsn": servers.dsn(name)}))
        eager = {"snapshot_every_records": plan.every_records, "snapshot_quiet_s": 0.0}
        workers = Workers(servers, settings.model_copy(update=eager), without, SNAPSHOTS)
    load = Load(
        settings,
        plan.seed,
        plan.events,
        PER_SECOND,
        clean=plan.clean,
        services=True,
        erasures=True,
    )

    def note(words: str) -> None:
        report.faults.append((round(time.monotonic() - begun, 1), words))

    try:
        for _ in range(plan.workers):
            workers.start()
        if beside is not None:
            beside.start()
        yield Scene(servers, workers, proxy, random.Random(plan.seed), note, beside), load, report
    finally:
        load.abandon()
        workers.stop()
        if beside is not None:
            beside.stop()
        proxy.close()
        _account(workers, report)


def run(servers: Servers, plan: Plan, on_step: Callable[[str], None] = lambda _: None) -> Report:
    """The whole schedule. What went wrong is in the report."""
    begun = time.monotonic()
    report = Report(plan.seed, plan.brokers, plan.victims.name)
    try:
        with stage(servers, plan) as (scene, load, report):
            on_step("workers start, the load begins")
            load.start()
            scene.workers.settled(plan.workers)
            for name in plan.faults:
                time.sleep(scene.rng.random())
                inflict(scene, report, name, on_step)
            on_step("the load ends")
            load.finish()
            on_step("folding to the end")
            conclude(scene, load, report)
            if plan.suspensions:
                with scene.ledger() as ledger:
                    report.differences = [*report.differences, *fickle_differences(ledger)]
    except Exception as error:
        report.error = (
            f"{type(error).__name__}: {error}" if isinstance(error, ConditionNotMet) else traceback.format_exc()
        )
    report.seconds = round(time.monotonic() - begun, 1)
    return report


def inflict(scene: Scene, report: Report, name: str, on_step: Callable[[str], None] = lambda _: None) -> None:
    """One fault; what it brought down without meaning to is counted and started again."""
    on_step(name.replace("_", " "))
    scene.note(name)
    {**SNAPSHOT_FAULTS, **SUSPENSIONS}[name](replace(scene, note=lambda words: scene.note(f" {words}")))
    report.ended_by_themselves += scene.replace_the_dead()


def folded_to_the_end(scene: Scene, report: Report, within_s: float = 240.0) -> None:
    """Wait until every checkpoint is at the end of the log. Workers that end are replaced, and counted."""
    ends = ends_of_log(scene.workers.settings)
    wanted = set(ends.items())
    with scene.ledger() as ledger:

        def done() -> bool:
            report.ended_by_themselves += scene.replace_the_dead()
            rows = ledger.execute("SELECT topic, partition, min(next_offset) FROM spanfold.checkpoints GROUP BY 1, 2")
            return {((topic, partition), offset) for topic, partition, offset in rows} == wanted

        until(done, f"checkpoints at {ends}", within_s=within_s)


def conclude(scene: Scene, load: Load, report: Report) -> None:
    """Let the workers come to the log's end and compare."""
    folded_to_the_end(scene, report)
    settings = scene.workers.settings
    log = reference.read_log(settings)
    with scene.ledger() as ledger:
        if scene.workers.role is SNAPSHOTS:
            compared, report.keys = states.compare(ledger, settings, log)
        else:
            compared = reference.compare(reference.expected(log, settings.partitions), reference.shown(ledger))
        differences = [*compared.differences, *instances.compare(ledger, log, settings.partitions)]
        ((duplicates,),) = ledger.execute(DUPLICATES).fetchall()
        report.duplicates = duplicates
    report.uncommitted = sum(log.ends.values()) - len(log.records)
    missing = reference.missing_from_log(log, load.acknowledged.ids, settings.topic_prefix)
    report.events, report.records = load.published, len(log.records)
    report.acknowledged, report.not_acknowledged = len(load.acknowledged.ids), len(load.acknowledged.failed)
    report.lost, report.doubled = compared.lost + len(missing), compared.doubled
    report.differences = [*differences, *missing[:3]]


DUPLICATES: Final = "SELECT count(*) FROM spanfold.verdicts WHERE verdict = 'duplicate'"


def _account(workers: Workers, report: Report) -> None:
    """What the workers' own logs tell."""
    report.workers = len(workers.all)
    for event, name in (("fenced", "fenced"), ("refold", "refolds"), ("postgres_retry", "retries")):
        setattr(report, name, sum(worker.times(event) for worker in workers.all))
    attempts = sorted((attempt for worker in workers.all for attempt in worker.attempts()), key=lambda each: each[-1])
    furthest = defaultdict[tuple[str, int], int](int)
    for topic, partition, start, end, _ in attempts:
        report.batches += 1
        report.redelivered += start < furthest[topic, partition]
        furthest[topic, partition] = max(end, furthest[topic, partition])


__all__ = ["Plan", "Report", "conclude", "folded_to_the_end", "inflict", "injuries", "run", "stage"]
