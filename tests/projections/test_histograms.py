"""Histograms of durations: what SQL reads from them is what plain Python counts."""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.projections.traces import rollups
from spanfold.projections.traces.spans import Rollup
from tests.support.databases import Ledger
from tests.support.trace_rows import empty

MINUTE_US = 60_000_000

durations = st.lists(
    st.integers(0, 40) | st.integers(0, 10**7) | st.sampled_from([(1 << 63) - 1, 1 << 40]), max_size=30
)

QUANTILES = """
SELECT spanfold.p50(duration_histogram), spanfold.p90(duration_histogram), spanfold.p95(duration_histogram),
       spanfold.p99(duration_histogram), spanfold.quantile(0, duration_histogram), spanfold.quantile(1, duration_histogram),
       spanfold.quantile(0.333, duration_histogram)
  FROM spanfold.operation_minutes
"""


def add(ledger: Ledger, parts: Sequence[Sequence[int]], sign: int = 1) -> None:
    """Durations of one operation; each part is of another partition and another minute."""
    for number, part in enumerate(parts):
        rollup = Rollup()
        for duration in part:
            rollup.add(duration, is_error=False)
        rows = {("shop", "pay", "server", "", number // 2 * MINUTE_US): rollup} if part else {}
        write = rollups.add_operations if sign > 0 else rollups.subtract_operations
        with ledger.transaction(), ledger.cursor() as cursor:
            write(cursor, "traces_g1", number, rows)


def upper_ms(duration: int) -> float:
    """Upper bound of the bucket: below 32 µs each has its own, beyond there are sixteen for each power of two."""
    if duration < 32:
        return duration / 1000
    width = 1 << (duration.bit_length() - 5)
    return (duration // width * width + width - 1) / 1000


def quantile(uppers: Sequence[float], q: float) -> float | None:
    return sorted(uppers)[max(math.ceil(Decimal(str(q)) * len(uppers)) - 1, 0)] if uppers else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(durations, max_size=4), st.lists(durations, max_size=4))
def test_quantiles_are_those_of_the_buckets_also_after_some_were_subtracted(
    ledger: Ledger, kept: list[list[int]], subtracted: list[list[int]]
) -> None:
    empty(ledger)
    add(ledger, kept)
    add(ledger, subtracted)
    add(ledger, subtracted, -1)
    uppers = [upper_ms(duration) for part in kept for duration in part]
    expected = [quantile(uppers, q) for q in (0.5, 0.9, 0.95, 0.99, 0, 1, 0.333)]
    assert list(one_row(ledger, QUANTILES)) == [value if value is None else pytest.approx(value) for value in expected]
    merged = one_row(
        ledger, "SELECT spanfold.histogram_bounds(spanfold.merge(duration_histogram)) FROM spanfold.operation_minutes"
    )
    assert {float(upper): count for upper, count in merged[0].items()} == Counter(uppers)


def one_row(ledger: Ledger, query: str) -> Any:
    (row,) = ledger.execute(query.encode()).fetchall()
    return row


def test_a_reader_may_ask_and_a_merged_histogram_can_be_merged_again(ledger: Ledger) -> None:
    add(ledger, [[1, 2, 3], [4], [5]])
    ledger.execute("SET ROLE spanfold_reader")
    assert one_row(ledger, QUANTILES)[:2] == (0.003, 0.005)
    twice = """
        SELECT spanfold.p50(by_minute), spanfold.histogram_bounds(spanfold.merge(by_minute))
          FROM (SELECT spanfold.merge(duration_histogram) AS by_minute FROM spanfold.operation_minutes GROUP BY minute) AS m
    """
    assert one_row(ledger, twice) == (0.003, {"0.001": 1, "0.002": 1, "0.003": 1, "0.004": 1, "0.005": 1})
    nothing = "SELECT spanfold.p99(NULL::spanfold.histogram), spanfold.histogram_bounds(spanfold.merge(NULL::spanfold.histogram))"
    assert one_row(ledger, nothing) == (None, {})
