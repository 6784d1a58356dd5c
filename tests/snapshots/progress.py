"""How far the snapshot worker is."""

from spanfold.application.aggregates import installed_aggregates
from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.settings import Settings
from tests.faults.states import not_fed
from tests.support.databases import Ledger
from tests.support.waiting import until
from tests.support.workers import Worker


def standing(ledger: Ledger) -> dict[tuple[str, int], int]:
    """Where the states of each partition stand."""
    rows = ledger.execute(
        "SELECT topic, partition, next_offset FROM spanfold.checkpoints WHERE projection = 'snapshots'"
    )
    return {(topic, partition): offset for topic, partition, offset in rows}


def folded(ledger: Ledger, settings: Settings, *workers: Worker) -> None:
    """Wait until the states are those at the log's end; fails at once if a worker has ended."""
    topics = {each.topic.name for each in installed_aggregates().values()}
    ends = {place: end for place, end in ends_of_log(settings).items() if place[0] in topics}

    def done() -> bool:
        for each in workers:
            assert each.process.poll() is None, f"the worker ended:\n{each.output()}"
        return standing(ledger) == ends

    until(done, f"states at {ends}", lambda: f"{standing(ledger)}\n{[each.output()[-3000:] for each in workers]}")


def fed(ledger: Ledger) -> None:
    """Wait until the compacted topic has every snapshot and every tombstone."""
    until(lambda: not not_fed(ledger), "the compacted topic has every snapshot", lambda: not_fed(ledger))
