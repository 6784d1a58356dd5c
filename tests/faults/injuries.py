"""The faults. Each is done to a running schedule, waits until the wound is there, and fails if it was none."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from confluent_kafka.admin import AdminClient

from spanfold.language.topics import TRACES, Topic
from tests.faults.proxy import Proxy
from tests.faults.waiting import DidNotBite
from tests.faults.workers import Worker, Workers
from tests.support.victims import Servers
from tests.support.waiting import ConditionNotMet, until

KILL_POINTS: Final = ("before_merge", "before_commit", "before_ack")
STOP_POINTS: Final = ("before_begin", "before_begin", "before_commit", "before_ack", "anywhere")
"""Before a commit it holds the locks, and whoever has got its partitions must wait for it."""


@dataclass
class Scene:
    """What a fault can lay hands on. `note` tells the report what has happened. `beside` are workers of another role, whom
    nobody injures; they come to Postgres past the proxy.
    """

    servers: Servers
    workers: Workers
    proxy: Proxy
    rng: random.Random
    note: Callable[[str], None]
    beside: Workers | None = None

    @property
    def session_timeout_s(self) -> float:
        return self.workers.settings.session_timeout_s

    def replace_the_dead(self) -> int:
        """See Workers.replace_the_dead."""
        return self.workers.replace_the_dead() + (self.beside.replace_the_dead() if self.beside else 0)

    def any_worker(self) -> Worker:
        return self.rng.choice(self.workers.running)

    def ledger(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Past the proxy."""
        dsn = self.workers.settings.postgres_dsn or ""
        database = dsn.rpartition("/")[2]
        return psycopg.connect(self.servers.dsn(database), autocommit=True, connect_timeout=5)


def await_end(worker: Worker, number: signal.Signals) -> None:
    until(lambda: not worker.running, f"the end of {worker.process.program.name}")
    if worker.process.code != -number:
        raise DidNotBite(f"{worker.process.program.name} ended with {worker.process.code}, not by {number.name}")


def kill_worker_at_a_point(scene: Scene) -> None:
    """kill -9 in the middle of a commit; another takes its place."""
    kill_at_one_of(scene, KILL_POINTS)


def kill_at_one_of(scene: Scene, points: Sequence[str]) -> None:
    """Of any worker, when it is at one of the points for one of the next times."""
    worker, point, number = scene.any_worker(), scene.rng.choice(points), scene.rng.randrange(1, 6)
    worker.may_end = True
    worker.arm(point, number, signal.SIGKILL)
    await_end(worker, signal.SIGKILL)
    if not worker.bit:
        raise DidNotBite(f"the worker was killed elsewhere than at {point}")
    scene.note(f"killed {point} #{number}")
    scene.workers.start()


def kill_worker_anywhere(scene: Scene) -> None:
    """kill -9 wherever it is."""
    worker = scene.any_worker()
    worker.may_end = True
    worker.process.end(signal.SIGKILL)
    await_end(worker, signal.SIGKILL)
    scene.workers.start()


def zombie(scene: Scene) -> None:
    """A worker stops for longer than its session; others get its partitions; it wakes and believes that it has them."""
    make_zombie(scene, scene.rng.choice(STOP_POINTS))


def make_zombie(scene: Scene, point: str, topic: Topic = TRACES) -> None:
    """Of any worker, which stops when it is at the point next, with records of the topic."""
    worker = scene.any_worker()
    scene.workers.settled(len(scene.workers.running))
    others = len(scene.workers.running) - 1
    if not others:
        scene.workers.start()
        scene.workers.settled(2)
        others = 1
    if point == "anywhere":
        worker.process.send(signal.SIGSTOP)
    else:
        worker.arm(point, 1, signal.SIGSTOP, topic)
        until(lambda: worker.bit, f"{point} is reached")
    try:
        scene.workers.settled(others)
        if point in ("before_begin", "before_merge"):
            until(lambda: _offered_to_another(scene, worker), "its batch is another worker's")
        scene.note(f"stopped {point}, its partitions were taken")
        time.sleep(scene.rng.random())
    finally:
        worker.process.send(signal.SIGCONT)
    scene.workers.settled(len(scene.workers.running))
    scene.note("woken and back in the group" if worker.running else "woken, and ended")


def _offered_to_another(scene: Scene, zombie: Worker) -> bool:
    """Whether another worker has tried to commit what the zombie's last batch begins with, however its batches are cut."""
    *_, (topic, partition, at, _, _) = zombie.attempts()
    others = (attempt for each in scene.workers.all if each is not zombie for attempt in each.attempts())
    return any((topic, partition) == (name, number) and start <= at < end for name, number, start, end, _ in others)


def worker_joins(scene: Scene) -> None:
    """One more worker: every partition changes hands."""
    before = len(scene.workers.running)
    scene.workers.start()
    scene.workers.settled(before + 1)


def worker_leaves(scene: Scene) -> None:
    """SIGTERM under load; the last one is replaced first."""
    if len(scene.workers.running) == 1:
        worker_joins(scene)
    worker = scene.any_worker()
    until(lambda: worker.times("Worker ready"), f"{worker.process.program.name} is at work")
    worker.may_end = True
    code = worker.process.end(signal.SIGTERM, within_s=15)
    if code:
        raise AssertionError(f"SIGTERM: {worker.process.program.name} ended with {code}:\n{worker.output()[-2000:]}")
    scene.workers.settled(len(scene.workers.running))


def kill_broker(scene: Scene) -> None:
    """kill -9 of the broker that leads a partition, and its start."""
    leader = _leader(scene)
    broker = scene.servers.brokers[leader]
    broker.end(signal.SIGKILL)
    if len(scene.servers.brokers) > 1:
        until(lambda: _leader(scene) not in (leader, -1), "another leader")
        scene.note(f"leader {leader} killed, now {_leader(scene)}")
    time.sleep(scene.rng.random() * 2)
    broker.start().await_ready()


def stop_broker(scene: Scene) -> None:
    """SIGTERM to a broker, and its start."""
    broker = scene.servers.brokers[_leader(scene)]
    broker.end(signal.SIGTERM, within_s=60)
    time.sleep(scene.rng.random() * 2)
    broker.start().await_ready()


def _leader(scene: Scene) -> int:
    settings = scene.workers.settings
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap or "", "log_level": 0})
    topic = TRACES.on_broker(settings.topic_prefix)
    return int(admin.list_topics(topic, timeout=20).topics[topic].partitions[0].leader)


def _stop_postgres(scene: Scene, number: signal.Signals) -> None:
    postgres = scene.servers.postgres
    with scene.ledger() as connection:
        backends = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL")]
    postgres.end(number, within_s=60)
    until(lambda: not any(map(_alive, backends)), "the end of Postgres' backends")


def _alive(pid: object) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


def _restart_postgres(scene: Scene, number: signal.Signals) -> None:
    _stop_postgres(scene, number)
    time.sleep(scene.rng.random() * 3)
    scene.servers.postgres.start().await_ready()


def restart_postgres(scene: Scene) -> None:
    """What `pg_ctl restart -m fast` does."""
    _restart_postgres(scene, signal.SIGINT)


def crash_postgres(scene: Scene) -> None:
    """Immediate shutdown, or kill -9 of the postmaster: it recovers from its log."""
    number = scene.rng.choice((signal.SIGQUIT, signal.SIGKILL))
    scene.note(number.name)
    _restart_postgres(scene, number)


def cut_connections(scene: Scene) -> None:
    """Every connection is reset, and new ones for a while."""
    # the workers may still be waiting to connect again, after the fault before
    cut = until(scene.proxy.cut, "a connection to cut")
    scene.proxy.refuse(True)
    cut += scene.proxy.cut()
    time.sleep(scene.rng.random() * 3)
    scene.proxy.refuse(False)
    scene.note(f"{cut} connections cut")


def cut_after_commit(scene: Scene) -> None:
    """Postgres commits, and the worker never hears of it."""
    scene.workers.settled(len(scene.workers.running))
    for attempt in range(1, 9):
        before = _fenced(scene)
        done = scene.proxy.cut_after_commit()
        until(done.is_set, "a commit")
        with suppress(ConditionNotMet):
            # else it was a commit of something else than a batch
            until(lambda before=before: _fenced(scene) > before, "the batch is offered again", within_s=6)  # type: ignore[misc]
            scene.note(f"the answer to a commit was lost (attempt {attempt})")
            return
    raise DidNotBite("no batch was offered again")


def _fenced(scene: Scene) -> int:
    return sum(each.times("fenced") for each in scene.workers.all)


def stall_connections(scene: Scene) -> None:
    """Nothing gets through for a while, then all does."""
    before = scene.proxy.held_up
    scene.proxy.stall(True)
    until(lambda: scene.proxy.held_up > before, "something is held up")
    time.sleep(1 + scene.rng.random() * 3)
    scene.proxy.stall(False)


def terminate_backends(scene: Scene) -> None:
    """pg_terminate_backend in the middle of a transaction."""
    with scene.ledger() as connection:

        def terminated() -> bool:
            return connection.execute(TERMINATE, (f"spanfold {scene.workers.role.name}",)).fetchone() is not None

        for _ in range(scene.rng.randrange(1, 4)):
            until(terminated, "a worker within a transaction")
            scene.note("terminated")
            time.sleep(scene.rng.random())


TERMINATE: Final = """
SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE application_name = %s AND datname = current_database()
   AND (backend_xid IS NOT NULL OR wait_event = 'ClientRead' AND state = 'idle in transaction')
"""

FAULTS: Final[dict[str, Callable[[Scene], None]]] = {
    fault.__name__: fault
    for fault in (
        kill_worker_at_a_point, kill_worker_anywhere, zombie, worker_joins, worker_leaves, kill_broker, stop_broker,
        restart_postgres, crash_postgres, cut_connections, cut_after_commit, stall_connections, terminate_backends,
    )
}  # fmt: skip
