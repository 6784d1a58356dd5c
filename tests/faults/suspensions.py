"""Faults that suspend: a projection that fails, and a topic that somebody suspends; each is resumed under load."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from spanfold.embedded.programs import Program
from spanfold.kafka.log_ends import bounds_of_topic
from spanfold.language.topics import TRACES
from spanfold.projections.commit.topic_suspension import suspend_topic
from spanfold.projections.generations.topic_resumption import resume_topic
from tests.faults.fickle import set_broken, why_suspended
from tests.faults.injuries import Scene
from tests.faults.waiting import DidNotBite
from tests.support.victims import Process
from tests.support.waiting import until


def suspend_projection(scene: Scene) -> None:
    """It fails until it is repaired; while it is resumed, the process that does it is killed, and it is resumed again."""
    with scene.ledger() as ledger:
        set_broken(ledger, True)
        why = until(lambda: why_suspended(ledger), "the suspension")
        if "ValueError: out of sorts (fickle.py:" not in why:
            raise DidNotBite(f"it was suspended for another reason: {why}")
        time.sleep(scene.rng.random() * 2)
        set_broken(ledger, False)
        if scene.rng.random() < 0.5:
            _kill_resuming(scene)
        if not why_suspended(ledger):
            return  # it was killed after its last transaction
        process = _resuming(scene)
        code = until(lambda: {"code": process.code} if process.code is not None else None, "the end of resuming")[
            "code"
        ]
        if code or why_suspended(ledger):
            raise AssertionError(f"resuming ended with {code}:\n{process.log.read_text()[-2000:]}")


def _kill_resuming(scene: Scene) -> None:
    process = _resuming(scene)
    time.sleep(scene.rng.random() * 3)
    with suppress(ProcessLookupError):
        process.send(signal.SIGKILL)
    until(lambda: process.code is not None, "the end of the killed process")
    scene.note("resuming was killed" if process.code == -signal.SIGKILL else "resuming had ended before it was killed")


def _resuming(scene: Scene) -> Process:
    settings = scene.workers.settings
    database = (settings.postgres_dsn or "").rpartition("/")[2]
    named = settings.model_copy(update={"postgres_dsn": scene.servers.dsn(database)}).model_dump()
    environment = {f"SPANFOLD_{key.upper()}": str(value) for key, value in named.items() if value is not None}
    name = f"{settings.group}-resuming-{time.monotonic_ns()}"
    argv = [sys.executable, "-m", "tests.faults.resuming"]
    return scene.servers.forked(Program(name=name, argv=argv, env=environment, cwd=scene.servers.home)).start()


def suspend_traces(scene: Scene) -> None:
    """The topic of traces stands still while all others go on, then it goes on too."""
    with scene.ledger() as ledger:

        def position() -> int:
            ((offset,),) = ledger.execute(JUDGED, [TRACES.name]).fetchall()
            return int(offset)

        suspend_topic(ledger, TRACES.name, "the schedule wants it")
        until(lambda: not ledger.execute(BEGUN_BEFORE).fetchall(), "the end of what was under way")
        before = position()
        time.sleep(scene.rng.random() * 3)
        bounds = bounds_of_topic(scene.workers.settings, TRACES.name)
        if position() != before:
            raise AssertionError("records of a suspended topic were judged")
        scene.note(f"{sum(end for _, end in bounds.values()) - before} records waited")
        resume_topic(ledger, TRACES.name, bounds, park=False, accept_loss=False)


BEGUN_BEFORE: Final = """
SELECT FROM pg_stat_activity a, spanfold.suspensions s
 WHERE s.name = 'spanfold.traces' AND a.datname = current_database() AND a.pid <> pg_backend_pid()
   AND a.application_name = 'spanfold projector' AND a.xact_start < s.suspended_at
"""

JUDGED: Final = "SELECT sum(next_offset) FROM spanfold.checkpoints WHERE topic = %s AND projection = 'journal'"

SUSPENSIONS: Final[dict[str, Callable[[Scene], None]]] = {
    fault.__name__: fault for fault in (suspend_projection, suspend_traces)
}
