"""The projection `metrics`: tables metric_points, metrics (the latest point of each series) and metric_minutes, from
MetricUpdated.

tables.py defines the tables and views.py the public views; fold.py folds events, minutes.py and buckets.py compute what a point
adds to its minute, merge.py writes a partial.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Cursor

from spanfold.language.topics import METRICS
from spanfold.projections.facts import Fact
from spanfold.projections.metrics.fold import MetricsPartial, combine, fold
from spanfold.projections.metrics.merge import merge
from spanfold.projections.metrics.tables import metadata
from spanfold.projections.metrics.views import VIEWS

__all__ = ["PROJECTION", "MetricsPartial", "MetricsProjection"]


class MetricsProjection:
    """See spanfold.projections.projection.Projection."""

    name = "metrics"
    fold_version = 1
    topics = (METRICS,)
    metadata = metadata
    views = VIEWS

    def fold(self, facts: Sequence[Fact]) -> MetricsPartial:
        return fold(facts)

    def combine(self, one: MetricsPartial, other: MetricsPartial) -> MetricsPartial:
        return combine(one, other)

    def merge(self, cursor: Cursor[Any], schema: str, partial: MetricsPartial, partition: int) -> None:
        merge(cursor, schema, partial, partition)


PROJECTION: Final = MetricsProjection()
