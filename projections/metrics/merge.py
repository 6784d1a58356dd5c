"""Writes a partial into a generation's tables: set-based, in the caller's transaction. Merging it again changes nothing."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from psycopg import Cursor, errors, sql

from spanfold.language.topics import US_PER_DAY
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget, float8_array, int8_array
from spanfold.projections import resources
from spanfold.projections.commit.reading import JSONB_VERSION
from spanfold.projections.metrics.fold import MetricsPartial, Point, PointKey, latest
from spanfold.projections.metrics.minutes import CHAIN_US, Minute, MinuteKey, TimedPoint, difference, exact, is_chained
from spanfold.projections.metrics.tables import MINUTES_TABLE, POINTS_TABLE, SERIES_TABLE
from spanfold.projections.resources import SourceIds
from spanfold.schemas.codec import Fields


def merge(cursor: Cursor[Any], schema: str, partial: MetricsPartial, partition: int) -> None:
    """Write the partial. Points first: only those that win change their series and, by the difference, their minute."""
    if not partial:
        return
    sources = {point.source for point in partial.values()}
    ids = resources.keep(cursor, schema, partition, sources)
    won, removed = _merge_points(cursor, schema, partial, ids)
    if won:
        points = [(series_id, time, partial[series_id, time]) for series_id, time in latest(won).items()]
        _upsert(cursor, schema, _SERIES, MERGE_SERIES, (_series_row(*point, ids) for point in points))
        added = [(series_id, time, partial[series_id, time].fields) for series_id, time in won]
        neighbors = _neighbors(cursor, schema, added, removed)
        changes = difference([*added, *neighbors], [*removed, *neighbors])
        if changes:
            _upsert(cursor, schema, _MINUTES, MERGE_MINUTES, _minute_rows(changes))


def _merge_points(
    cursor: Cursor[Any], schema: str, partial: MetricsPartial, ids: SourceIds
) -> tuple[Collection[PointKey], list[TimedPoint]]:
    """The keys of the points that are new or win against the one in the table, and the points that they replace."""
    try:
        with cursor.connection.transaction():
            _POINTS.copy(cursor, schema, _point_rows(partial, ids))
        return partial.keys(), []
    except errors.UniqueViolation:
        pass
    _upsert(cursor, schema, _POINTS, MERGE_POINTS, _point_rows(partial, ids))
    won: list[PointKey] = []
    removed: list[TimedPoint] = []
    for series_id, time, replaced, *columns in cursor:
        won.append((series_id, time))
        if replaced:
            removed.append((series_id, time, dict(zip(_COUNTED, columns, strict=True))))
    return won, removed


def _neighbors(
    cursor: Cursor[Any], schema: str, added: Collection[TimedPoint], removed: Collection[TimedPoint]
) -> list[TimedPoint]:
    """The points next to these in their chains, but for the added ones: the predecessors, and those whose predecessor changes."""
    keys = [
        (series_id, point["kind"], point["start_time"], time)
        for series_id, time, point in (*added, *removed)
        if is_chained(point)
    ]
    if not keys:
        return []
    own = {(series_id, time) for series_id, time, _ in added}
    cursor.execute(
        sql.SQL(NEIGHBORS).format(table=sql.Identifier(schema, POINTS_TABLE.name)),
        (*map(list, zip(*keys, strict=True)), CHAIN_US, CHAIN_US),
    )
    points = {(row[0], row[1]): dict(zip(_COUNTED, row[2:], strict=True)) for row in cursor}
    return [(*key, point) for key, point in points.items() if key not in own]


def _upsert(
    cursor: Cursor[Any], schema: str, target: CopyTarget, statement: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    incoming = target.copy_incoming(cursor, schema, rows)
    cursor.execute(sql.SQL(statement).format(table=sql.Identifier(schema, target.name), incoming=incoming))


def _point_rows(partial: MetricsPartial, ids: SourceIds) -> Iterator[tuple[Any, ...]]:
    """Rows of POINTS_TABLE, in the order of its key."""
    for (series_id, time), point in sorted(partial.items()):
        fields = point.fields
        yield (
            series_id, time - PG_EPOCH_US, point.event_id, fields["kind"], fields["temporality"],
            fields["monotonic"], *_measured(fields),
            *_buckets(fields), 1 - point.age, ids[point.source],
        )  # fmt: skip


def _series_row(series_id: str, time: int, point: Point, ids: SourceIds) -> tuple[Any, ...]:
    fields = point.fields
    return (
        series_id, fields["name"], fields["unit"], fields["kind"], fields["temporality"], fields["monotonic"],
        fields["service_name"], fields["labels"], time - PG_EPOCH_US, point.event_id,
        *_measured(fields), 1 - point.age, ids[point.source],
    )  # fmt: skip


def _measured(fields: Fields) -> tuple[Any, ...]:
    start = fields["start_time"]
    return (
        None if start is None else start - PG_EPOCH_US, _numeric(fields["value"]), fields["count"],
        _numeric(fields["sum"]), _numeric(fields["min"]), _numeric(fields["max"]),
    )  # fmt: skip


def _numeric(number: float | None) -> Any:
    return exact(number) if isinstance(number, float) else number


def _buckets(fields: Fields) -> tuple[Any, ...]:
    """The columns from bounds to negative_counts."""
    match fields["kind"]:
        case "histogram":
            return (float8_array(fields["bounds"]), int8_array(fields["bucket_counts"]), *_NONE[2:])
        case "exponential_histogram":
            return (
                None, None, fields["scale"], fields["zero_count"],
                fields["positive_offset"], int8_array(fields["positive_counts"]),
                fields["negative_offset"], int8_array(fields["negative_counts"]),
            )  # fmt: skip
        case _:
            return _NONE


def _minute_rows(minutes: Mapping[MinuteKey, Minute]) -> Iterator[tuple[Any, ...]]:
    """Rows of MINUTES_TABLE, or the changes to add to them."""
    for (series_id, minute), change in minutes.items():
        buckets = {upper: count for upper, count in change.buckets.items() if count}
        # not orjson: a count may exceed 64 bits
        document = JSONB_VERSION + json.dumps(buckets).encode() if buckets else None
        yield (series_id, minute - PG_EPOCH_US, change.points, change.count, change.sum, document)


_NONE: Final = (None,) * 8

_COUNTED: Final = (
    "kind", "temporality", "monotonic", "start_time", "value", "count", "sum", "bounds", "bucket_counts", "scale", "zero_count",
    "positive_offset", "positive_counts", "negative_offset", "negative_counts",
)  # fmt: skip
"""The columns of a point that count in its minute."""


def _set(table: Any) -> str:
    return ",\n    ".join(
        f"{column.name} = excluded.{column.name}" for column in table.columns if not column.primary_key
    )


def _counted(table: str) -> str:
    """The columns of _COUNTED, times in µs since 1970."""
    start = f"(extract(epoch FROM {table}.start_time) * 1000000)::bigint AS start_time"
    return ", ".join(start if name == "start_time" else f"{table}.{name}" for name in _COUNTED)


def _timestamp(us: str) -> str:
    """µs since 1970 as a timestamp. Days apart from the rest: an interval is multiplied in double precision."""
    day, rest = f"{us} / {US_PER_DAY} * interval '24 hours'", f"mod({us}, {US_PER_DAY}) * interval '1 microsecond'"
    return f"timestamptz '1970-01-01Z' + {day} + {rest}"


_CHAINED: Final = """p.kind = k.kind AND p.temporality = 'cumulative'
           AND p.start_time IS NOT DISTINCT FROM k.start_time
           AND (p.value IS NULL OR p.value NOT IN ('NaN', 'Infinity', '-Infinity'))"""

NEIGHBORS: Final = f"""
WITH keys AS (
    SELECT series_id, kind, {_timestamp("start_time")} AS start_time, {_timestamp("time")} AS time
      FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) AS k (series_id, kind, start_time, time)
)
SELECT p.series_id, (extract(epoch FROM p.time) * 1000000)::bigint, {_counted("p")}
  FROM keys k
 CROSS JOIN LATERAL (
       (SELECT *
          FROM {{table}} p
         WHERE p.series_id = k.series_id AND p.time < k.time AND p.time >= k.time - %s * interval '1 microsecond'
           AND {_CHAINED}
         ORDER BY p.time DESC
         LIMIT 1)
        UNION ALL
       (SELECT *
          FROM {{table}} p
         WHERE p.series_id = k.series_id AND p.time > k.time AND p.time <= k.time + %s * interval '1 microsecond'
           AND {_CHAINED}
         ORDER BY p.time
         LIMIT 1)) p
"""

MERGE_POINTS: Final = f"""
WITH replaced AS (
    SELECT t.series_id, t.time, true AS replaced, {_counted("t")}
      FROM {{table}} t
      JOIN {{incoming}} i USING (series_id, time)
     WHERE (i.event_id, -i.version) > (t.event_id, -t.version)
), won AS (
    INSERT INTO {{table}} AS t
    SELECT * FROM {{incoming}}
    ON CONFLICT (series_id, time) DO UPDATE SET
    {_set(POINTS_TABLE)}
    WHERE (excluded.event_id, -excluded.version) > (t.event_id, -t.version)
    RETURNING series_id, time
)
SELECT series_id, (extract(epoch FROM time) * 1000000)::bigint, replaced, {", ".join(_COUNTED)}
  FROM won
  LEFT JOIN replaced USING (series_id, time)
"""

MERGE_SERIES: Final = f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT (series_id) DO UPDATE SET
    {_set(SERIES_TABLE)}
WHERE (excluded.time, excluded.event_id, -excluded.version) > (t.time, t.event_id, -t.version)
"""

# trim_scale: a point with more digits that was replaced leaves no zeros behind, so equal sums are equal rows
MERGE_MINUTES: Final = """
INSERT INTO {table} AS t
SELECT series_id, minute, points, count, trim_scale(sum), buckets FROM {incoming}
ON CONFLICT (series_id, minute) DO UPDATE SET
    points = t.points + excluded.points,
    count = t.count + excluded.count,
    sum = trim_scale(t.sum + excluded.sum),
    buckets = CASE WHEN excluded.buckets IS NULL
                   THEN t.buckets
                   ELSE (SELECT jsonb_object_agg(upper, count)
                           FROM (SELECT key AS upper, sum(value::numeric) AS count
                                   FROM (SELECT key, value FROM jsonb_each_text(t.buckets)
                                          UNION ALL
                                         SELECT key, value FROM jsonb_each_text(excluded.buckets)) AS entries
                                  GROUP BY key) AS added
                          WHERE count <> 0)
              END
"""

_POINTS: Final = CopyTarget(POINTS_TABLE)
_SERIES: Final = CopyTarget(SERIES_TABLE)
_MINUTES: Final = CopyTarget(MINUTES_TABLE)
