"""Metrics: from the views of the projection `metrics`."""

from collections.abc import Mapping
from typing import Any, Final

from psycopg import sql

from spanfold.application.messages import Answer
from spanfold.application.queries import GetMetricsByName, GetMetricSeries, MetricPoint, MetricReadModel, MetricSeries
from spanfold.projections.queries.reader import Question, Reader, Row, bounded

PROJECTION: Final = "metrics"


def handlers(reader: Reader) -> Mapping[type[Any], Any]:
    """A handler for each of this module's queries."""

    async def by_name(query: GetMetricsByName) -> Answer[tuple[MetricReadModel, ...]]:
        parameters = {"name": query.name, "service_name": query.service_name, "rows": query.limit}
        question = Question(PROJECTION, sql.SQL(BY_NAME), sql.SQL("series_id"), parameters)
        answer = await reader.find(question, query.at_least)
        return Answer(tuple(_latest(row) for row in answer.rows), answer.reflects)

    async def get_series(query: GetMetricSeries) -> Answer[MetricSeries | None]:
        conditions, parameters = bounded(query, RANGE)
        where = sql.SQL(" AND ").join([sql.SQL("series_id = %(series_id)s"), *conditions])
        select = sql.SQL(SERIES).format(where=where)
        parameters |= {"series_id": query.series_id, "rows": query.limit}
        answer = await reader.find(Question(PROJECTION, select, sql.SQL("point_time"), parameters), query.at_least)
        points = tuple(_point(row) for row in answer.rows if row["point_time"] is not None)
        return Answer(
            MetricSeries(latest=_latest(answer.rows[0]), points=points) if answer.rows else None, answer.reflects
        )

    return {GetMetricsByName: by_name, GetMetricSeries: get_series}


def _latest(row: Row) -> MetricReadModel:
    return MetricReadModel(
        id=row["series_id"],
        name=row["name"],
        service_name=row["service_name"],
        kind=row["kind"],
        unit=row["unit"],
        timestamp=row["time"],
        value=row["value"],
        labels=row["labels"],
        count=row["count"],
        sum=row["sum"],
    )


def _point(row: Row) -> MetricPoint:
    return MetricPoint(
        timestamp=row["point_time"], value=row["point_value"], count=row["point_count"], sum=row["point_sum"]
    )


COLUMNS: Final = """
series_id, name, service_name, kind, unit, time, value::double precision, labels, count, sum::double precision
"""

BY_NAME: Final = f"""
SELECT {COLUMNS}
  FROM spanfold.metrics
 WHERE name = %(name)s AND service_name = coalesce(%(service_name)s, service_name)
 ORDER BY series_id
 LIMIT %(rows)s
"""

RANGE: Final = {"start_from": "time >= %(start_from)s", "start_before": "time < %(start_before)s"}

SERIES: Final = f"""
SELECT latest.*, point_time, point_value, point_count, point_sum
  FROM (SELECT {COLUMNS} FROM spanfold.metrics WHERE series_id = %(series_id)s) AS latest
  LEFT JOIN (SELECT time AS point_time, value::double precision AS point_value, count AS point_count,
                    sum::double precision AS point_sum
               FROM spanfold.metric_points
              WHERE {{where}}
              ORDER BY time DESC
              LIMIT %(rows)s) AS points ON true
"""
