"""A worker's memory is bounded whatever the log holds, and good records beside hostile ones are folded."""

import os
import re
import time
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import psycopg

from spanfold.language.events import MetricUpdated
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.language.topics import METRICS
from tests.support.hostile_topic import (
    MB,
    large_header,
    large_value,
    of_one_partition,
    produce_batch,
    raw,
    with_neighbours,
)
from tests.support.raw_batches import RawRecord, Repeated
from tests.support.stories import stories
from tests.support.topics import log_ends
from tests.support.waiting import PATIENCE_S, until
from tests.support.workers import Start, Worker, positions

BOUND_MB: Final = 600

MEDIUM: Final = int(os.environ.get("HOSTILE_RECORDS", "1000"))
"""Records of 1 MB in one batch. Of 10,000 Postgres gets 10 GB, which takes minutes."""


def peak_mb(worker: Worker) -> float:
    """The most memory that the process has had."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 / MB


def test_a_worker_folds_what_lies_beside_records_that_are_larger_than_its_memory(
    stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start
) -> None:
    home, good = of_one_partition(stories(200), stack_settings.partitions)
    first, second, third = good[:10], good[10:20], good[20:30]
    key = first[0].aggregate_id.encode()
    large = third[0]
    produce_batch(stack_settings, home, with_neighbours(first, [large_header(key)] * 2))
    produce_batch(stack_settings, home, with_neighbours(second, [large_value(large)]), codec="gzip")
    produce_batch(
        stack_settings,
        home,
        with_neighbours(third[1:5], list(repeat(RawRecord(key, Repeated(b"m", MB)), 3))),
        codec="lz4",
    )
    medium = RawRecord(key, Repeated(b"m", MB))
    produce_batch(
        stack_settings,
        home,
        iter([*with_neighbours(third[5:6], [medium]), *repeat(medium, MEDIUM), *with_neighbours(third[6:], [medium])]),
    )

    worker = start()
    ends = log_ends(stack_settings)

    def is_folded() -> bool:
        worker.check()
        return positions(ledger) == ends == positions(ledger, "journal")

    until(is_folded, f"checkpoints at {ends}", worker.output, within_s=PATIENCE_S + MEDIUM / 10)
    peak = peak_mb(worker)
    print(f"peak memory of the projector: {peak:.0f} MB")
    verdicts = dict(ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1").fetchall())
    assert verdicts == {"accepted": 30, "malformed": 2 + 3 + MEDIUM + 2}, worker.output()
    parked = ledger.execute("SELECT reason, aggregate_id, value_bytes, length(payload) FROM spanfold.parked_records")
    assert parked.fetchall() == [("too_large", large.aggregate_id, 1000 * MB, 1024)]
    ((stored,),) = ledger.execute("SELECT max(length(headers::text)) FROM spanfold_core.rejected").fetchall()
    assert stored < 1_000
    assert peak < BOUND_MB
    assert worker.stop() == 0


def test_arrays_that_take_far_more_memory_once_they_are_decoded_are_folded_few_at_a_time(
    stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start
) -> None:
    at_us, key = time.time_ns() // 1000, "series"
    home = int(partitions_of([key.encode()], stack_settings.partitions)[0])
    points = [
        MetricUpdated(
            aggregate_id=key, occurred_at=at_us + number, source="test", name="latency", service_name="shop",
            kind="exponential_histogram", count=5, scale=3, zero_count=0, positive_offset=0, positive_counts=(300,) * 450_000,
        )
        for number in range(30)
    ]  # fmt: skip
    produce_batch(stack_settings, home, map(raw, points), topic=METRICS)

    worker = start()

    def is_folded() -> bool:
        worker.check()
        return ledger.execute("SELECT count(*) FROM spanfold.metric_points").fetchall() == [(len(points),)]

    until(is_folded, "30 points", worker.output)
    assert peak_mb(worker) < BOUND_MB
    assert worker.stop() == 0
