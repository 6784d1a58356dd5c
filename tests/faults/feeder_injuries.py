"""Faults of those who feed the compacted topic; see injuries.py."""

import signal
import time
from collections.abc import Callable
from typing import Final

from tests.faults.injuries import FAULTS, Scene, kill_at_one_of
from tests.faults.workers import Worker
from tests.support.waiting import until

OTHERS_S: Final = 90.0
"""After the session has timed out, another has to get a producer of its own, and something new to feed."""

FEEDING_POINTS: Final = ("before_produce", "before_confirm", "before_note")


def kill_feeder_at_a_point(scene: Scene) -> None:
    """kill -9 in the midst of feeding; another takes its place."""
    kill_at_one_of(scene, FEEDING_POINTS)


def zombie_feeder(scene: Scene) -> None:
    """A worker stops in the midst of feeding for longer than its session; another feeds its partition; it wakes and goes on."""
    make_zombie_feeder(scene, scene.rng.choice(("before_produce", "before_confirm")))


def make_zombie_feeder(scene: Scene, point: str) -> None:
    """Of any worker, which stops when it is at the point next. It fails to confirm what it was about to."""
    if len(scene.workers.running) == 1:
        scene.workers.start()
    scene.workers.settled(len(scene.workers.running))
    worker, others = scene.any_worker(), len(scene.workers.running) - 1
    stop_feeding(scene, worker, point)
    before = worker.times("feeding_again")
    try:
        scene.workers.settled(others)
        _fed_by_another(scene, worker)
        time.sleep(scene.rng.random())
    finally:
        worker.process.send(signal.SIGCONT)
    until(lambda: worker.times("feeding_again") > before or not worker.running, "its transaction is refused")
    scene.note(f"stopped {point}, its partition was fed by another, its transaction was refused")
    scene.workers.settled(len(scene.workers.running))


def stop_feeding(scene: Scene, worker: Worker, point: str) -> None:
    """Stop it at the point next."""
    worker.arm(point, 1, signal.SIGSTOP)
    until(lambda: worker.bit, f"{point} is reached")


def feeding(worker: Worker) -> tuple[str, int, int]:
    """What the worker fed last: topic, partition, and the sequence up to which the compacted topic had it."""
    topic, partition, sequence = (worker.folder / "feeding").read_text().split()
    return topic, int(partition), int(sequence)


def _fed_by_another(scene: Scene, worker: Worker) -> None:
    """Wait until the partition that it was feeding has been fed further."""
    topic, partition, sequence = feeding(worker)
    query = "SELECT FROM spanfold_core.snapshot_feed WHERE topic = %s AND partition = %s AND sequence > %s"
    with scene.ledger() as ledger:

        def fed() -> bool:
            return ledger.execute(query, (topic, partition, sequence)).fetchone() is not None

        until(fed, f"another feeds {topic}[{partition}]", within_s=OTHERS_S)


SNAPSHOT_FAULTS: Final[dict[str, Callable[[Scene], None]]] = {
    **FAULTS,
    "kill_feeder_at_a_point": kill_feeder_at_a_point,
    "zombie_feeder": zombie_feeder,
}
"""Those of a schedule whose victims are snapshot workers."""
