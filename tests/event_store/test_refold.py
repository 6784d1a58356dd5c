"""The log of a conditional topic, folded again from its start by newer software into an empty database: the same verdicts."""

import random
from collections.abc import Sequence
from typing import Any

import psycopg

from spanfold.application.event_store import Conflict, EventStore
from spanfold.bootstrap import event_store
from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.events import DomainEvent
from spanfold.language.settings import Settings
from spanfold.language.topics import SERVICES
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.contracts.event_store import changed, fresh, registered
from tests.support import other_versions
from tests.support.commands import command, json_of
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.waiting import until
from tests.support.workers import Start

JUDGED = {
    "verdicts": "SELECT * FROM spanfold.verdicts WHERE topic = 'spanfold.services' ORDER BY partition, kafka_offset",
    "journal": "SELECT * FROM spanfold_core.journal_services ORDER BY partition, kafka_offset",
    "first_verdicts": "SELECT * FROM spanfold_core.first_verdicts ORDER BY topic, partition, event_id",
    "heads": "SELECT * FROM spanfold_core.heads ORDER BY topic, aggregate_id",
}
INSTANCES = "SELECT * FROM spanfold.services ORDER BY instance_id"
PARKED = "SELECT partition, kafka_offset, reason FROM spanfold.parked_records WHERE state = 'parked' ORDER BY 1, 2"


def rows(ledger: Ledger, query: str) -> list[Any]:
    return ledger.execute(query.encode()).fetchall()


def judged(ledger: Ledger) -> dict[str, list[Any]]:
    return {name: rows(ledger, query) for name, query in JUDGED.items()}


def at_the_end(ledger: Ledger, settings: Settings) -> None:
    """Wait until the journal and the projection have reached the end of the topic."""
    ends = {partition: end for (topic, partition), end in ends_of_log(settings).items() if topic == SERVICES.name}
    query = "SELECT partition, min(next_offset) FROM spanfold.checkpoints WHERE topic = 'spanfold.services' GROUP BY 1"
    until(lambda: dict(rows(ledger, query)) == ends, f"checkpoints at {ends}", lambda: rows(ledger, query))


async def append_all_sorts(store: EventStore, instances: Sequence[str]) -> int:
    """Appends that win, lose, come again and travel together; returns how many lost."""
    rng, before, lost = random.Random(7), list[DomainEvent](), 0
    for number in range(120):
        instance = rng.choice(instances)
        one = changed(instance) if rng.random() < 0.1 else registered(instance, number)
        events: list[DomainEvent] = [one, registered(instance, number + 1)] if rng.random() < 0.3 else [one]
        if before and rng.random() < 0.1:
            events = [rng.choice(before)]
        before += events
        try:
            await store.append_events(events, rng.choice((None, rng.randrange(20))))
        except Conflict:
            lost += 1
    return lost


async def test_a_refold_by_newer_software_gives_the_same_verdicts_versions_and_heads(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    older, instances = start(program=other_versions.program("without_health_changes")), [fresh() for _ in range(6)]
    async with event_store(stack_settings, timeout_s=60) as store:
        assert await append_all_sorts(store, instances) > 10
    at_the_end(ledger, stack_settings)
    live, parked = judged(ledger), rows(ledger, PARKED)
    assert {reason for _, _, reason in parked} == {"unknown_schema", "behind"}
    assert {row[3] for row in live["verdicts"]} == {"accepted", "conflict", "duplicate"}

    newer = start(second_settings, batch_records=17)
    with psycopg.connect(str(second_settings.postgres_dsn), autocommit=True) as again:
        at_the_end(again, second_settings)
        assert judged(again) == live
        assert rows(again, PARKED) == []

        # the same newer software leaves parked what was parked, until it is retried
        assert older.stop() == 0
        start()
        async with event_store(stack_settings, timeout_s=60) as store:
            await store.append_event(registered(fresh()), 0)
        at_the_end(ledger, stack_settings)
        assert rows(ledger, PARKED) == parked
        assert rows(ledger, INSTANCES) != rows(again, INSTANCES)
        behind = json_of(stack_settings, "parked", "list", "--reason", "behind")[0]["position"]
        assert "behind" in command(stack_settings, "parked", "show", behind).stdout
        alone = command(stack_settings, "parked", "retry", behind, "--yes")
        assert alone.returncode == 2, alone
        assert "settle that one first, then this one follows" in alone.stderr
        while rows(ledger, PARKED):
            before = len(rows(ledger, PARKED))
            json_of(stack_settings, "parked", "retry", "--reason", "unknown_schema", "--yes")
            at_the_end(ledger, stack_settings)
            assert len(rows(ledger, PARKED)) < before
        assert json_of(stack_settings, "parked", "list", "--reason", "behind", "--state", "retried")
        at_the_end(again, second_settings)
        assert newer.process.poll() is None
        assert judged(again) == judged(ledger)
        assert rows(again, INSTANCES) == rows(ledger, INSTANCES)

    services = rows(ledger, INSTANCES)
    with at_work(stack_settings, "services") as context:
        assert all(each.equal for each in rebuilding.rebuild(context, 2).parity)
    assert rows(ledger, INSTANCES) == services
