"""Points of metrics: whatever the order, the cuts and the repetitions, the same rows.

What the rows must be is said by `told`, in the dumbest way.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanfold.language.events import MetricUpdated, TraceCompleted
from spanfold.language.times import as_datetime
from spanfold.language.topics import METRICS
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.facts import Fact
from spanfold.projections.metrics import PROJECTION, MetricsPartial
from spanfold.projections.metrics.buckets import bound_text, power
from spanfold.projections.projection import installed
from spanfold.projections.retention.retention_horizons import trim
from tests.support.databases import Ledger
from tests.support.strategies import CODEC, DAY, NOW, Record, batch, cut, records_of, tags, texts
from tests.support.trace_rows import SOURCE, document, source_row, source_shown

Row = dict[str, Any]

MINUTE = 60_000_000
GREATEST = (1 << 63) - 1

PURE = settings(max_examples=100, deadline=None)
THROUGH_POSTGRES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# Points as they might come: series and times are few, so that they contend

integers = st.integers(-(1 << 63), GREATEST)
counts = st.integers(0, 9) | st.integers(0, GREATEST)
bucket_lists = st.lists(counts, max_size=4)
common = {
    "aggregate_id": st.sampled_from(["a", "b", "serie ü"]),
    "occurred_at": st.sampled_from([NOW, NOW + 1, NOW + MINUTE - 1, NOW + MINUTE, NOW - DAY]),
    "source": st.just("test"),
    "name": texts,
    "service_name": texts,
    "unit": st.sampled_from(["s", "By", ""]),
    "resource": st.sampled_from([{}, {"service.version": "1"}, {"service.version": 2, "host": {"cpu": [1]}}]),
    "scope_name": texts,
    "scope_version": st.sampled_from(["", "2"]),
    "labels": tags,
    "start_time": st.none() | st.sampled_from([NOW - DAY, NOW - 2 * DAY]) | st.integers(NOW - DAY, NOW),
    "monotonic": st.booleans(),
}
temporalities = st.sampled_from(["delta", "cumulative", None])
measured = {
    "temporality": temporalities,
    "count": counts,
    "sum": st.none() | st.floats(),
    "min": st.none() | st.floats(),
    "max": st.none() | st.floats(),
}

plain_points = st.builds(
    MetricUpdated,
    **common,
    kind=st.sampled_from(["gauge", "sum"]),
    temporality=temporalities,
    value=st.integers(-3, 3) | integers | st.floats() | st.sampled_from([0.1, 0.2, 1e308, 5e-324, -0.0]),
)
exponential_points = st.builds(
    MetricUpdated,
    **common,
    **measured,
    kind=st.just("exponential_histogram"),
    scale=st.integers(-10, 20) | st.sampled_from([0, 3]),
    zero_count=st.none() | counts,
    positive_offset=st.integers(-3, 3) | st.integers(-(1 << 31), (1 << 31) - 1),
    positive_counts=bucket_lists,
    negative_offset=st.integers(-3, 3) | st.integers(-(1 << 31), (1 << 31) - 1),
    negative_counts=bucket_lists,
)


@st.composite
def _histogram_points(draw: st.DrawFn) -> MetricUpdated:
    edges = st.sampled_from([0.005, 0.01, 1.0, 5.0, 1e-5, 1e15, 1e16]) | st.floats(allow_nan=False)
    bounds = sorted(draw(st.lists(edges, max_size=3, unique=True)))
    bucket_counts = draw(st.lists(counts, min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    if not bounds and draw(st.booleans()):
        bucket_counts = []
    point: MetricUpdated = draw(st.builds(MetricUpdated, **common, **measured, kind=st.just("histogram")))
    return replace(point, bounds=tuple(bounds), bucket_counts=tuple(bucket_counts), event_id=b"")


points = plain_points | _histogram_points() | exponential_points
distinct_points = st.lists(points, max_size=8, unique_by=lambda event: event.event_id)

# What the rows must be


class Rows(NamedTuple):
    """What the views show: points by series and time, series by id, minutes by series and minute."""

    points: dict[tuple[str, int], Row]
    series: dict[str, Row]
    minutes: dict[tuple[str, int], Row]


def told(log: Sequence[MetricUpdated]) -> Rows:
    """The rows that the log tells of, if its first event has offset 0."""
    winners: dict[tuple[str, int], MetricUpdated] = {}
    for event in log:
        key = (event.aggregate_id, event.occurred_at)
        if key not in winners or event.event_id > winners[key].event_id:
            winners[key] = event
    last: dict[str, MetricUpdated] = {}
    for (series_id, _), event in sorted(winners.items(), key=lambda item: item[0]):
        last[series_id] = event
    minutes: dict[tuple[str, int], list[Counted]] = {}
    for (series_id, time), event in winners.items():
        counted = Counted(event, _predecessor(event, winners.values()))
        minutes.setdefault((series_id, time // MINUTE * MINUTE), []).append(counted)
    return Rows(
        {key: _point_row(event, last[key[0]], log) for key, event in winners.items()},
        {series_id: _series_row(event, log) for series_id, event in last.items()},
        {key: _minute_row(counted, last[key[0]]) for key, counted in minutes.items()},
    )


class Counted(NamedTuple):
    """A point, and the point before it in its chain."""

    event: MetricUpdated
    before: MetricUpdated | None


def _is_chained(event: MetricUpdated) -> bool:
    is_finite = event.kind != "sum" or math.isfinite(event.value or 0)
    return event.temporality == "cumulative" and event.kind != "gauge" and is_finite


def _predecessor(event: MetricUpdated, events: Iterable[MetricUpdated]) -> MetricUpdated | None:
    """The latest earlier one of the same series, kind and start, at most a day before."""
    if not _is_chained(event):
        return None
    chain = [
        other
        for other in events
        if _is_chained(other)
        and (other.aggregate_id, other.kind, other.start_time) == (event.aggregate_id, event.kind, event.start_time)
        and 0 < event.occurred_at - other.occurred_at <= DAY
    ]
    return max(chain, key=lambda other: other.occurred_at, default=None)


def _is_new(event: MetricUpdated) -> bool:
    """Whether a point without one before it counts whole."""
    return event.start_time is not None and event.occurred_at - event.start_time <= DAY


def _measurement(event: MetricUpdated, log: Sequence[MetricUpdated]) -> Row:
    first = min(offset for offset, each in enumerate(log) if each.event_id == event.event_id)
    return {
        "kind": event.kind,
        "temporality": event.temporality,
        "start_time": event.start_time,
        "value": number(event.value),
        "count": event.count,
        "sum": number(event.sum),
        "min": number(event.min),
        "max": number(event.max),
        "version": first + 1,
    }


def _series_row(event: MetricUpdated, log: Sequence[MetricUpdated]) -> Row:
    return {
        **_measurement(event, log),
        "name": event.name,
        "unit": event.unit,
        "time": event.occurred_at,
        "labels": document(event.labels),
        "monotonic": event.monotonic,
        "service_name": event.service_name,
        "source": source_row(event),
    }


def _point_row(event: MetricUpdated, last: MetricUpdated, log: Sequence[MetricUpdated]) -> Row:
    explicit, exponential = event.kind == "histogram", event.kind == "exponential_histogram"
    return {
        **_measurement(event, log),
        "name": last.name,
        "unit": last.unit,
        "labels": document(last.labels),
        "service_name": last.service_name,
        "source": source_row(event),
        "bounds": list(event.bounds) if explicit else None,
        "bucket_counts": list(event.bucket_counts) if explicit else None,
        "scale": event.scale if exponential else None,
        "zero_count": event.zero_count if exponential else None,
        "positive_offset": event.positive_offset if exponential else None,
        "positive_counts": list(event.positive_counts) if exponential else None,
        "negative_offset": event.negative_offset if exponential else None,
        "negative_counts": list(event.negative_counts) if exponential else None,
        "event_id": event.event_id,
    }


def _minute_row(points: Sequence[Counted], last: MetricUpdated) -> Row:
    events = [event for event, _ in points]
    values = [
        point for point in points if point.event.kind in ("gauge", "sum") and math.isfinite(point.event.value or 0)
    ]
    gauges = sorted((point.event.occurred_at, point.event.value) for point in values if point.event.kind == "gauge")
    histograms = [_histogram_growth(point) for point in points if point.event.kind not in ("gauge", "sum")]
    deltas = [event for event in events if event.kind not in ("gauge", "sum") and event.temporality == "delta"]
    total = sum([*map(_value_growth, values), *(growth[1] for growth in histograms)], Fraction())
    count = len(values) + sum(growth[0] for growth in histograms)
    is_gauge = last.kind == "gauge"
    buckets: dict[float, int] = {}
    for _, _, more in histograms:
        buckets = {upper: buckets.get(upper, 0) + more.get(upper, 0) for upper in {**buckets, **more}}
    least = [value for _, value in gauges] + [event.min for event in deltas]
    greatest = [value for _, value in gauges] + [event.max for event in deltas]
    return {
        "points": len(events),
        "count": count,
        "sum": None if is_gauge else total,
        "last": shortest(gauges[-1][1]) if gauges else None,
        "min": min(map(shortest, finite(least)), default=None),
        "max": max(map(shortest, finite(greatest)), default=None),
        "mean": _approximately(total / count) if is_gauge and count else None,
        "buckets": {upper: number for upper, number in buckets.items() if number} or None,
        "name": last.name,
        "labels": document(last.labels),
        "service_name": last.service_name,
        "unit": last.unit,
        "kind": last.kind,
        "temporality": last.temporality,
        "monotonic": last.monotonic,
    }


def _approximately(mean: Fraction) -> Any:
    return pytest.approx(float(mean), rel=1e-9, abs=1e-15)


def _value_growth(point: Counted) -> Fraction:
    event, before = point
    value = shortest(event.value)
    if not _is_chained(event):
        return value
    if before is None:
        return value if _is_new(event) else Fraction()
    is_reset = event.monotonic and value < shortest(before.value)
    return value if is_reset else value - shortest(before.value)


def _histogram_growth(point: Counted) -> tuple[int, Fraction, dict[float, int]]:
    """Measurements, their sum, and their buckets, as far as the point tells of new ones."""
    event, before = point
    if event.temporality is None:
        return 0, Fraction(), {}
    whole = (event.count or 0, _known(event.sum), _buckets([event]) or {})
    if event.temporality == "delta":
        return whole
    if before is None or (event.bounds, event.scale) != (before.bounds, before.scale):
        return whole if _is_new(event) else (0, Fraction(), {})
    old = _buckets([before]) or {}
    more = {upper: whole[2].get(upper, 0) - old.get(upper, 0) for upper in {**whole[2], **old}}
    if whole[0] < (before.count or 0) or min(more.values(), default=0) < 0:
        return whole
    return whole[0] - (before.count or 0), whole[1] - _known(before.sum), more


def _known(total: float | None) -> Fraction:
    return Fraction() if total is None or not math.isfinite(total) else shortest(total)


def finite(numbers: Iterable[Any]) -> list[Any]:
    return [each for each in numbers if each is not None and math.isfinite(each)]


def shortest(value: Any) -> Fraction:
    """The number that a double says when it is written out."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _buckets(deltas: Sequence[MetricUpdated]) -> dict[float, int] | None:
    found: dict[float, int] = {}

    def count(upper: float, number: int) -> None:
        if number:
            found[upper] = found.get(upper, 0) + number

    for event in deltas:
        for upper, each in zip([*event.bounds, math.inf], event.bucket_counts, strict=False):
            count(upper, each)
        if event.scale is not None:
            count(0.0, event.zero_count or 0)
            for index, each in enumerate(event.positive_counts):
                count(_power(event.scale, event.positive_offset + index + 1), each)
            for index, each in enumerate(event.negative_counts):
                count(-_power(event.scale, event.negative_offset + index), each)
    return found or None


def _power(scale: int, index: int) -> float:
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 80, 10**9, -(10**9)
        exponent = Decimal(index) / (Decimal(2) ** scale)
        if abs(exponent) > 5000:
            return math.inf if exponent > 0 else 0.0
        return float(Decimal(2) ** exponent)


def number(value: Any) -> Any:
    """Such that equal numbers are equal, whatever type they have, and NaN is itself."""
    if value is None:
        return None
    return shortest(value) if math.isfinite(value) else str(float(value))


# The rows as a reader sees them

US = "(extract(epoch FROM {0}) * 1000000)::bigint AS {0}"
POINTS = f"""
SELECT series_id, {US.format("time")}, name, kind, value, count, sum, min, max, bounds, bucket_counts, labels::text,
       service_name, unit, temporality, {US.format("start_time")}, scale, zero_count, positive_offset,
       positive_counts, negative_offset, negative_counts, event_id, version, {SOURCE}
  FROM spanfold.metric_points
"""
SERIES = f"""
SELECT series_id, name, value, unit, {US.format("time")}, labels::text, kind, temporality, monotonic, service_name,
       {US.format("start_time")}, count, sum, min, max, version, {SOURCE}
  FROM spanfold.metrics
"""
MINUTES = f"""
SELECT series_id, {US.format("minute")}, name, points, count, sum, last, min, max, mean, buckets::text, labels::text,
       service_name, unit, kind, temporality, monotonic
  FROM spanfold.metric_minutes
"""


SOURCE_COLUMNS = [column.removesuffix("::text") for column in SOURCE.split(", ")]


def shown(ledger: Ledger) -> Rows:
    """The rows of the public views."""
    points, series, minutes = (_rows(ledger, query) for query in (POINTS, SERIES, MINUTES))
    for row in [*points, *series]:
        row |= {name: number(row[name]) for name in ("value", "sum", "min", "max")}
    for row in [*points, *series]:
        row["source"] = source_shown([row.pop(name) for name in SOURCE_COLUMNS])
    for row in points:
        row["event_id"] = row["event_id"].bytes
    for row in minutes:
        row |= {name: row[name] if row[name] is None else Fraction(row[name]) for name in ("sum", "last", "min", "max")}
        row["mean"] = row["mean"] and float(row["mean"])
        row["buckets"] = row["buckets"] and {
            float(upper): count for upper, count in json.loads(row["buckets"], parse_float=Decimal).items()
        }
    return Rows(
        {(row.pop("series_id"), row.pop("time")): row for row in points},
        {row.pop("series_id"): row for row in series},
        {(row.pop("series_id"), row.pop("minute")): row for row in minutes},
    )


def _rows(ledger: Ledger, query: str) -> list[Row]:
    cursor = ledger.execute(query.encode())
    assert cursor.description
    names = [column.name for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    for row in rows:
        row["labels"] = document(json.loads(row["labels"], parse_int=Decimal, parse_float=Decimal))
    return rows


def on_metrics(one: Batch) -> Batch:
    return replace(one, topic=METRICS)


def fold(ledger: Ledger, batches: Iterable[Batch]) -> list[Outcome]:
    store = Store(installed())
    return [outcome for one in batches for outcome in store.commit(ledger, store.prepare(on_metrics(one)))]


def fold_one_by_one(ledger: Ledger, *events: MetricUpdated) -> None:
    fold(ledger, ([batch([each]) for each in records_of(events)]))


def empty(ledger: Ledger) -> None:
    with ledger.transaction():
        for table in ("metric_points", "metrics", "metric_minutes", "resources"):
            ledger.execute(f"DELETE FROM metrics_g1.{table}".encode())
        ledger.execute("DELETE FROM spanfold_core.parked")
        ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")


# The fold is a commutative, idempotent monoid


def facts_of(events: Sequence[MetricUpdated]) -> list[Fact]:
    return read(judge(on_metrics(batch(records_of(events)))), CODEC, {})


def in_three(data: st.DataObject) -> tuple[list[Fact], list[Fact], list[Fact]]:
    facts = facts_of(data.draw(st.lists(points, max_size=12)))
    low, high = sorted((data.draw(st.integers(0, len(facts))), data.draw(st.integers(0, len(facts)))))
    return facts[:low], facts[low:high], facts[high:]


@PURE
@given(st.data())
def test_any_order_any_cut_and_any_doubling_fold_to_the_same_partial(data: st.DataObject) -> None:
    facts = facts_of(data.draw(st.lists(points, max_size=12)))
    again = data.draw(st.lists(st.sampled_from(facts), max_size=4)) if facts else []
    log = data.draw(st.permutations([*facts, *again]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    parts = [log[low:high] for low, high in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    assert reduce(PROJECTION.combine, map(PROJECTION.fold, parts)) == PROJECTION.fold(facts)


@PURE
@given(st.data())
def test_combine_is_commutative_associative_and_idempotent_and_has_a_zero(data: st.DataObject) -> None:
    one, two, three = map(PROJECTION.fold, in_three(data))
    combine, zero = PROJECTION.combine, PROJECTION.fold(())
    assert combine(one, two) == combine(two, one)
    assert combine(combine(one, two), three) == combine(one, combine(two, three))
    assert combine(one, zero) == combine(zero, one) == combine(one, one) == one


@PURE
@given(st.data())
def test_combine_leaves_what_it_was_given_as_it_was(data: st.DataObject) -> None:
    first, second, _ = in_three(data)
    one, two = PROJECTION.fold(first), PROJECTION.fold(second)
    PROJECTION.combine(one, two)
    assert (one, two) == (PROJECTION.fold(first), PROJECTION.fold(second))


@PURE
@given(st.lists(points, max_size=12))
def test_the_partial_holds_the_winner_of_each_point(events: list[MetricUpdated]) -> None:
    partial = PROJECTION.fold(facts_of(events))
    found = {key: (point.event_id, 1 - point.age) for key, point in partial.items()}
    assert found == {key: (row["event_id"], row["version"]) for key, row in told(events).points.items()}


# The same through Postgres


@THROUGH_POSTGRES
@given(distinct_points, st.data())
def test_any_order_any_cut_and_any_doubling_give_the_same_rows(
    ledger: Ledger, events: list[MetricUpdated], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=5)) if events else []
    log = data.draw(st.permutations([*events, *again]))
    written = records_of(log)
    batches = cut(written, data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    empty(ledger)
    fold(ledger, [part for part in batches for _ in range(data.draw(st.integers(1, 2)))])
    assert shown(ledger) == told(log)


@THROUGH_POSTGRES
@given(st.lists(st.lists(points, max_size=4), max_size=4), st.data())
def test_partials_merged_in_any_order_and_again_give_the_same_rows(
    ledger: Ledger, parts: list[list[MetricUpdated]], data: st.DataObject
) -> None:
    log = [event for part in parts for event in part]
    facts = {fact[0]: fact for fact in facts_of(log)}
    partials, start = [], 0
    for part in parts:
        partials.append(PROJECTION.fold([facts[offset] for offset in range(start, start + len(part))]))
        start += len(part)
    again = data.draw(st.lists(st.sampled_from(partials), max_size=3)) if partials else []
    empty(ledger)
    merge(ledger, data.draw(st.permutations([*partials, *again])))
    assert shown(ledger) == told(log)


def merge(ledger: Ledger, partials: Iterable[MetricsPartial]) -> None:
    for partial in partials:
        with ledger.transaction(), ledger.cursor() as cursor:
            PROJECTION.merge(cursor, "metrics_g1", partial, 0)


def gauge(value: Any, at: int = NOW, **changes: Any) -> MetricUpdated:
    said: dict[str, Any] = {
        "aggregate_id": "a",
        "name": "temperature",
        "service_name": "shop",
        "value": value,
    } | changes
    return MetricUpdated(occurred_at=at, source="test", **said)


def delta(value: Any, at: int = NOW) -> MetricUpdated:
    return gauge(value, at, kind="sum", temporality="delta")


def histogram(at: int = NOW, **changes: Any) -> MetricUpdated:
    said: dict[str, Any] = {
        "aggregate_id": "h", "name": "duration", "service_name": "shop", "unit": "s", "kind": "histogram",
        "temporality": "delta", "count": 6, "sum": 2.5, "min": 0.001, "max": 1.5,
        "bounds": (0.005, 1.0), "bucket_counts": (1, 2, 3),
    } | changes  # fmt: skip
    return MetricUpdated(occurred_at=at, source="test", **said)


def one_row(ledger: Ledger, query: str) -> Any:
    return ledger.execute(query.encode()).fetchone()


def test_a_topic_that_is_published_three_times_over_gives_the_rows_of_once(ledger: Ledger) -> None:
    log = [gauge(number, NOW + number * 1_000_000, aggregate_id=f"{number % 7}") for number in range(200)]
    log += [histogram(NOW + number * 1_000_000, count=number) for number in range(100)]
    once = records_of(log)
    fold(ledger, cut(once, [50, 170]))
    before = shown(ledger)
    assert before == told(log)
    outcomes = fold(ledger, cut(records_of(log * 2, start=len(log)), [100, 260, 420]))
    assert sum(outcome.folded for outcome in outcomes) == 600
    assert shown(ledger) == before


@pytest.mark.parametrize("first", [0, 1])
def test_a_point_that_is_replaced_changes_its_minute_by_the_difference(ledger: Ledger, first: int) -> None:
    rivals = sorted([delta(0.1), delta(0.7)], key=lambda event: event.event_id)
    fold_one_by_one(ledger, delta(0.2, NOW + 1), rivals[first], rivals[1 - first])
    assert one_row(ledger, "SELECT points, count, sum FROM spanfold.metric_minutes") == (
        2, 2, exact_sum(0.2, rivals[1].value),
    )  # fmt: skip
    assert shown(ledger).points["a", NOW]["event_id"] == rivals[1].event_id


def exact_sum(*values: Any) -> Decimal:
    return sum((Decimal(repr(value)) for value in values), Decimal())


@pytest.mark.parametrize("first", [0, 1])
def test_a_point_that_is_replaced_leaves_no_trailing_zeros(ledger: Ledger, first: int) -> None:
    fine = delta(0.12345)
    coarse = next(rival for rival in map(delta, range(1, 100)) if rival.event_id > fine.event_id)
    fold_one_by_one(ledger, delta(2.0, NOW + 1), (fine, coarse)[first], (fine, coarse)[1 - first])
    assert one_row(ledger, "SELECT sum::text FROM spanfold.metric_minutes") == (str(2 + int(coarse.value or 0)),)


@pytest.mark.parametrize("first", [0, 1])
def test_a_bucket_that_is_emptied_by_a_replacement_is_gone(ledger: Ledger, first: int) -> None:
    rivals = [histogram(bucket_counts=counted) for counted in ((6, 0, 0), (0, 0, 6))]
    rivals.sort(key=lambda event: event.event_id)
    fold_one_by_one(ledger, rivals[first], rivals[1 - first])
    only = "0.005" if rivals[1].bucket_counts[0] else "Infinity"
    assert one_row(ledger, "SELECT count, buckets FROM spanfold.metric_minutes") == (6, {only: 6})


@pytest.mark.parametrize("first", [0, 1])
def test_a_kind_that_changes_takes_all_along(ledger: Ledger, first: int) -> None:
    rivals = [histogram(), histogram(temporality="cumulative", sum=7.5)]
    rivals.sort(key=lambda event: event.event_id)
    fold_one_by_one(ledger, rivals[first], rivals[1 - first])
    # a cumulative one without a start has no beginning to count from
    counted = 6 if rivals[1].temporality == "delta" else 0
    assert one_row(ledger, "SELECT points, count FROM spanfold.metric_minutes") == (1, counted)
    assert shown(ledger) == told([rivals[first], rivals[1 - first]])


def test_numbers_that_are_not_finite_are_kept_in_the_point_and_left_out_of_the_minute(ledger: Ledger) -> None:
    odd = [gauge(value, NOW + at) for at, value in enumerate([math.nan, math.inf, -math.inf, 1.5])]
    fold(ledger, [batch(records_of(odd))])
    values = ledger.execute("SELECT value::text FROM spanfold.metric_points ORDER BY time").fetchall()
    assert values == [("NaN",), ("Infinity",), ("-Infinity",), ("1.5",)]
    assert one_row(ledger, "SELECT points, count, sum, last, min, max, mean FROM spanfold.metric_minutes") == (
        4, 1, None, Decimal("1.5"), Decimal("1.5"), Decimal("1.5"), 1.5,
    )  # fmt: skip


def test_a_histogram_whose_sum_is_not_finite_still_counts(ledger: Ledger) -> None:
    fold(ledger, [batch(records_of([histogram(sum=math.inf, max=math.inf), histogram(NOW + 1, sum=None)]))])
    found = one_row(ledger, "SELECT count, sum, max, buckets FROM spanfold.metric_minutes")
    assert found == (12, 0, Decimal("1.5"), {"0.005": 2, "1": 4, "Infinity": 6})


def test_integers_of_64_bits_are_exact(ledger: Ledger) -> None:
    log = [delta(GREATEST), delta(GREATEST, NOW + 1), delta(-GREATEST - 1, NOW + 2), delta(0.1, NOW + 3)]
    fold(ledger, [batch(records_of(log))])
    assert one_row(ledger, "SELECT sum FROM spanfold.metric_minutes") == (Decimal(GREATEST) - 1 + Decimal("0.1"),)
    fold(ledger, [batch(records_of([histogram(NOW + at, count=GREATEST) for at in range(3)], start=4))])
    found = one_row(ledger, "SELECT count FROM spanfold.metric_minutes WHERE name = 'duration'")
    assert found == (3 * GREATEST,)


def test_the_greatest_and_the_least_double_in_one_minute_lose_nothing(ledger: Ledger) -> None:
    log = [delta(value, NOW + at) for at, value in enumerate([1.7976931348623157e308, 5e-324, -1.7976931348623157e308])]
    fold_one_by_one(ledger, *log)
    assert one_row(ledger, "SELECT sum = 5e-324 FROM spanfold.metric_minutes") == (True,)


def test_delta_histograms_add_up_and_answer_for_quantiles(ledger: Ledger) -> None:
    log = [histogram(NOW + at * 1_000_000) for at in range(90)]
    fold_one_by_one(ledger, *log)
    query = """
    SELECT name, sum(count), sum(sum), spanfold.quantile(spanfold.histogram_sum(buckets), 0.5),
           spanfold.quantile(spanfold.histogram_sum(buckets), 0.99), spanfold.histogram_sum(buckets)
      FROM spanfold.metric_minutes GROUP BY name
    """
    assert one_row(ledger, query) == (
        "duration", 540, 225, 1.0, math.inf, {"0.005": 90, "1": 180, "Infinity": 270},
    )  # fmt: skip


def total(value: Any, at: int, **changes: Any) -> MetricUpdated:
    """A point of a cumulative counter that has counted from NOW on."""
    fields: dict[str, Any] = {
        "kind": "sum",
        "temporality": "cumulative",
        "monotonic": True,
        "start_time": NOW,
    } | changes
    return gauge(value, at, aggregate_id="c", **fields)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_cumulative_counter_counts_by_differences_in_any_order(ledger: Ledger, order: Sequence[int]) -> None:
    log = [total(5, NOW + 1), total(10, NOW + 2), total(15, NOW + 3)]
    fold_one_by_one(ledger, *(log[at] for at in order))
    assert one_row(ledger, "SELECT points, count, sum FROM spanfold.metric_minutes") == (3, 3, 15)


def test_a_restarted_counter_begins_anew(ledger: Ledger) -> None:
    log = [
        total(5, NOW + 1),
        total(15, NOW + 2),
        total(7, NOW + 9, start_time=NOW + 5),
        total(15, NOW + 10, start_time=NOW + 5),
    ]
    fold_one_by_one(ledger, *log)
    assert one_row(ledger, "SELECT sum FROM spanfold.metric_minutes") == (30,)
    assert shown(ledger) == told(log)


def test_a_counter_that_is_reset_counts_whole(ledger: Ledger) -> None:
    fold_one_by_one(ledger, total(5, NOW + 1), total(15, NOW + 2), total(3, NOW + 3), total(4, NOW + 4))
    assert one_row(ledger, "SELECT sum FROM spanfold.metric_minutes") == (19,)


def test_the_first_point_of_a_counter_that_began_long_ago_counts_nothing(ledger: Ledger) -> None:
    long_ago = {"start_time": NOW - 2 * DAY}
    fold_one_by_one(ledger, total(500, NOW + 1, **long_ago), total(507, NOW + 2, **long_ago))
    assert one_row(ledger, "SELECT sum FROM spanfold.metric_minutes") == (7,)


def test_cumulative_histograms_count_by_differences(ledger: Ledger) -> None:
    log = [
        histogram(
            NOW + at,
            temporality="cumulative",
            start_time=NOW,
            count=6 * at,
            sum=2.5 * at,
            bucket_counts=(at, 2 * at, 3 * at),
        )
        for at in (1, 2, 3)
    ]  # fmt: skip
    fold_one_by_one(ledger, log[2], log[0], log[1])
    assert one_row(ledger, "SELECT points, count, sum, min, buckets FROM spanfold.metric_minutes") == (
        3, 18, Decimal("7.5"), None, {"0.005": 3, "1": 6, "Infinity": 9},
    )  # fmt: skip


chained_points = st.builds(
    MetricUpdated,
    aggregate_id=st.sampled_from(["a", "a", "b"]),
    occurred_at=st.sampled_from([NOW + step for step in (0, 1, 2, 3, MINUTE, 2 * MINUTE, -DAY, -DAY - 1)]),
    source=st.just("test"),
    name=st.just("n"),
    service_name=st.just("shop"),
    kind=st.sampled_from(["sum", "sum", "sum", "gauge"]),
    temporality=st.sampled_from(["cumulative", "cumulative", "delta"]),
    monotonic=st.booleans(),
    start_time=st.sampled_from([NOW - 2 * DAY, NOW - DAY, None]),
    value=st.integers(0, 9) | st.sampled_from([math.nan, 0.1]),
)


@THROUGH_POSTGRES
@given(st.lists(chained_points, max_size=10, unique_by=lambda event: event.event_id), st.data())
def test_differences_are_the_same_in_any_order_and_any_cut(
    ledger: Ledger, events: list[MetricUpdated], data: st.DataObject
) -> None:
    log = data.draw(st.permutations(events))
    batches = cut(records_of(log), data.draw(st.lists(st.integers(0, len(log)), max_size=6)))
    empty(ledger)
    fold(ledger, batches)
    assert shown(ledger) == told(log)


@THROUGH_POSTGRES
@given(st.lists(chained_points, max_size=10, unique_by=lambda event: event.event_id), st.integers(0, 10), st.data())
def test_points_that_come_after_old_ones_were_deleted_count_as_if_those_were_there(
    ledger: Ledger, events: list[MetricUpdated], at: int, data: st.DataObject
) -> None:
    horizon = data.draw(st.sampled_from([NOW - DAY, NOW, NOW + MINUTE])) // MINUTE * MINUTE
    log = [*events[:at], *(event for event in events[at:] if event.occurred_at >= horizon)]
    written = records_of(log)
    empty(ledger)
    fold(ledger, cut(written[:at], []))
    kept_from = as_datetime(horizon)
    horizons = {"metric_points": kept_from - timedelta(days=1), "metric_minutes": kept_from}
    trim(ledger, "metrics_g1", PROJECTION.metadata, horizons)
    fold(ledger, cut(written[at:], data.draw(st.lists(st.integers(0, len(log)), max_size=3))))
    since = [
        {key: row for key, row in rows.minutes.items() if key[1] >= horizon} for rows in (shown(ledger), told(log))
    ]
    assert since[0] == since[1]


def exponential(at: int = NOW, **changes: Any) -> MetricUpdated:
    return histogram(at, **{
        "kind": "exponential_histogram", "bounds": (), "bucket_counts": (), "scale": 1, "zero_count": 4,
        "positive_offset": 1, "positive_counts": (1, 0, 2), "negative_offset": 0, "negative_counts": (5,), "count": 12,
    } | changes)  # fmt: skip


def test_exponential_histograms_add_up_by_the_bounds_of_their_buckets(ledger: Ledger) -> None:
    fold_one_by_one(ledger, exponential(), exponential(NOW + 1))
    found = one_row(ledger, "SELECT count, buckets, spanfold.quantile(buckets, 0.5) FROM spanfold.metric_minutes")
    assert found == (24, {"0": 8, "2": 2, "4": 4, "-1": 10}, 0.0)


@pytest.mark.parametrize(
    ("scale", "index", "expected"),
    [
        (0, 0, 1.0), (0, -3, 0.125), (3, 8, 2.0), (1, 1, 2**0.5), (-10, 1, math.inf), (-10, -2, 0.0), (0, 1023, 2.0**1023),
        (0, 1024, math.inf), (0, -1074, 5e-324), (20, 1 << 20, 2.0), (20, 1, 1.0000006610368821), (0, -(1 << 62), 0.0),
    ],
)  # fmt: skip
def test_the_bound_of_an_exponential_bucket_is_the_nearest_double(scale: int, index: int, expected: float) -> None:
    assert power(scale, index) == expected


@PURE
@given(st.integers(-10, 20), st.integers(-2000, 2000) | st.integers(-(1 << 31), 1 << 31))
def test_bounds_of_exponential_buckets_agree_with_decimal_powers(scale: int, index: int) -> None:
    assert power(scale, index) == _power(scale, index)


@given(st.floats(allow_nan=False))
@example(-0.0)
def test_a_bound_as_text_reads_back_as_the_same_number_and_has_one_form(bound: float) -> None:
    assert float(bound_text(bound)) == bound
    assert bound_text(-0.0) == bound_text(0.0) == "0"


def test_the_latest_point_of_a_series_is_the_one_of_the_latest_time(ledger: Ledger) -> None:
    fold_one_by_one(ledger, gauge(3, NOW + 2, labels={"room": 1}), gauge(9, NOW), gauge(4, NOW + 1))
    columns = [row[0] for row in ledger.execute(COLUMNS, ("spanfold.metrics",))][:6]
    assert columns == ["series_id", "name", "value", "unit", "time", "labels"]
    found = one_row(ledger, "SELECT series_id, name, value, unit, labels FROM spanfold.metrics")
    assert found == ("a", "temperature", 3, "", {"room": 1})


COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"


@pytest.mark.parametrize("view", ["metrics", "metric_points", "metric_minutes", "metric_overflows"])
def test_every_column_says_what_it_means(ledger: Ledger, view: str) -> None:
    uncommented = ledger.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND col_description(attrelid, attnum) IS NULL AND attnum > 0",
        (f"spanfold.{view}",),
    )
    assert uncommented.fetchall() == []


def test_names_and_units_of_any_length_are_rows(ledger: Ledger) -> None:
    long = "\u20ac" * 100_000
    log = [
        gauge(1, name=long, unit=long, service_name=long, scope_name=long, aggregate_id="k" * 512, labels={long: long})
    ]
    fold(ledger, [batch(records_of(log))])
    assert shown(ledger) == told(log)


# What cannot become a point


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        (gauge(None), "a gauge without a value"),
        (gauge(None, kind="sum"), "a sum without a value"),
        (gauge(1, kind="summary"), "kind is 'summary', not gauge, sum, histogram or exponential_histogram"),
        (gauge(1, temporality="both"), "temporality is 'both', neither delta nor cumulative nor null"),
        (histogram(count=None), "the count of a histogram is None"),
        (histogram(count=-1), "the count of a histogram is -1"),
        (histogram(bucket_counts=(1, 2)), "2 bucket_counts for 2 bounds: there must be one more"),
        (histogram(bucket_counts=()), "0 bucket_counts for 2 bounds: there must be one more"),
        (histogram(bucket_counts=(1, -2, 3)), "a bucket's count is negative"),
        (histogram(bounds=(1.0, 1.0)), "the bounds do not ascend"),
        (histogram(bounds=(1.0, math.nan)), "the bounds do not ascend"),
        (histogram(bounds=(math.nan,), bucket_counts=(1, 2)), "the bounds do not ascend"),
        (exponential(scale=None), "the scale of an exponential histogram is None, not in -10 to 20"),
        (exponential(scale=21), "the scale of an exponential histogram is 21, not in -10 to 20"),
        (exponential(zero_count=-1), "a bucket's count is negative"),
        (exponential(negative_counts=(-1,)), "a bucket's count is negative"),
    ],
)
def test_what_cannot_become_a_point_is_parked_and_leaves_the_others_alone(
    ledger: Ledger, event: MetricUpdated, detail: str
) -> None:
    others = [gauge(1), histogram(), exponential(aggregate_id="e"), gauge(2, NOW + 1)]
    log: list[Record] = records_of([*others[:2], event, *others[2:]])
    (outcome,) = fold(ledger, [batch(log)])
    assert (outcome.folded, outcome.parked) == (4, {"invalid": 1})
    parked = ledger.execute("SELECT kafka_offset, reason, detail FROM spanfold.parked_records").fetchall()
    assert parked == [(2, "invalid", detail)]
    found = {key: row["event_id"] for key, row in shown(ledger).points.items()}
    assert found == {key: row["event_id"] for key, row in told(others).points.items()}


def test_histograms_without_buckets_and_with_one_are_points(ledger: Ledger) -> None:
    log = [histogram(bounds=(), bucket_counts=()), histogram(NOW + 1, bounds=(), bucket_counts=(6,))]
    fold(ledger, [batch(records_of(log))])
    assert shown(ledger) == told(log)


def test_an_event_of_another_topic_is_parked(ledger: Ledger) -> None:
    stranger = TraceCompleted(aggregate_id="a", occurred_at=NOW, source="test", end_time=NOW)
    (outcome,) = fold(ledger, [batch(records_of([gauge(1), stranger]))])
    assert (outcome.folded, outcome.parked) == (1, {"invalid": 1})
