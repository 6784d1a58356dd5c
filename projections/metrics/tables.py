"""The tables of a generation.

All events of a series are in one partition, because its id is their key. So no row is written from two partitions, and no key
needs the partition. Sums are numeric: a sum of doubles would depend on the order of addition.
"""

from typing import Any, Final

from sqlalchemy import TIMESTAMP, BigInteger, Boolean, Column, Index, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB

from spanfold.projections import resources
from spanfold.projections.retention.rules import Retained

metadata = MetaData()

RESOURCES_TABLE: Final = resources.resources_table(metadata)


def _measured() -> tuple[Column[Any], ...]:
    """The columns of a point of any kind."""
    return (
        Column("start_time", TIMESTAMP(timezone=True)),
        Column("value", Numeric),
        Column("count", BigInteger),
        Column("sum", Numeric),
        Column("min", Numeric),
        Column("max", Numeric),
    )


CHAIN_DAYS: Final = 1
"""A cumulative point counts by the difference to a predecessor at most this far before it."""

POINTS_TABLE: Final = Table(
    "metric_points",
    metadata,
    Column("series_id", Text(collation="C"), primary_key=True),
    Column("time", TIMESTAMP(timezone=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("temporality", Text),
    Column("monotonic", Boolean, nullable=False),
    *_measured(),
    Column("bounds", ARRAY(DOUBLE_PRECISION)),
    Column("bucket_counts", ARRAY(BigInteger)),
    Column("scale", BigInteger),
    Column("zero_count", BigInteger),
    Column("positive_offset", BigInteger),
    Column("positive_counts", ARRAY(BigInteger)),
    Column("negative_offset", BigInteger),
    Column("negative_counts", ARRAY(BigInteger)),
    Column("version", BigInteger, nullable=False),
    *resources.resource_id("metric_points"),
    info={"retained": Retained(("time",), looked_up_days=CHAIN_DAYS)},
)

SERIES_TABLE: Final = Table(
    "metrics",
    metadata,
    Column("series_id", Text(collation="C"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("temporality", Text),
    Column("monotonic", Boolean, nullable=False),
    Column("service_name", Text, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("time", TIMESTAMP(timezone=True), nullable=False),
    Column("event_id", Uuid, nullable=False),
    *_measured(),
    Column("version", BigInteger, nullable=False),
    *resources.resource_id("metrics"),
    # names may have any length, and a hash index stores 4 bytes of them
    Index("metrics_name", "name", postgresql_using="hash"),
    # room for the next point of each series on its own page
    postgresql_with={"fillfactor": 60},
)

MINUTES_TABLE: Final = Table(
    "metric_minutes",
    metadata,
    Column("series_id", Text(collation="C"), primary_key=True),
    Column("minute", TIMESTAMP(timezone=True), primary_key=True),
    Column("points", BigInteger, nullable=False),
    # numeric: two counts of 64 bits may add up to more than 64 bits
    Column("count", Numeric, nullable=False),
    Column("sum", Numeric, nullable=False),
    Column("buckets", JSONB),
    info={"retained": Retained(("minute",))},
)
