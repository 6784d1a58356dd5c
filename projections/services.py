"""The projection `services`: the registered instances, from ServiceRegistered, ServiceHealthChanged and ServiceDeregistered.

The table keeps the last event of each type, with its place in the log: its record's offset, and its index within an EventBatch.
The view derives the current state: an instance is registered if no later event deregistered it, and its status comes from the
later of the other two events. So partials may be combined in any order, and the result equals the state of ServiceAggregate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never, cast

from psycopg import Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.language.topics import SERVICES, ServiceEventType
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View
from spanfold.schemas.codec import Fields

LastEvent = tuple[Any, ...]
"""One event: its record's offset, its index within the record, occurred_at in µs since 1970 UTC, then its own fields."""


@dataclass(slots=True)
class InstancePartial:
    """The last event of each type about one instance."""

    registered: LastEvent | None = None
    health: LastEvent | None = None
    deregistered: LastEvent | None = None


ServicesPartial = dict[str, InstancePartial]

metadata = MetaData()


def _place(owner: str) -> list[Column[Any]]:
    return [
        Column(f"{owner}_offset", BigInteger),
        Column(f"{owner}_number", Integer),
        Column(f"{owner}_at", TIMESTAMP(timezone=True)),
    ]


SERVICES_TABLE: Final = Table(
    "services",
    metadata,
    Column("instance_id", Text(collation="C"), primary_key=True),
    Column("partition", SmallInteger, nullable=False),
    *_place("registered"),
    Column("service_name", Text),
    Column("host", Text),
    Column("port", Integer),
    Column("health_check_url", Text),
    Column("metadata", JSONB),
    Column("first_status", Text),
    *_place("health"),
    Column("status", Text),
    Column("reason", Text),
    *_place("deregistered"),
    # names may have any length, and are looked up by equality only
    Index("services_service_name", "service_name", postgresql_using="hash"),
    postgresql_with={"fillfactor": 75},
)

_REGISTERED: Final = ("service_name", "host", "port", "health_check_url", "metadata", "first_status")
_HEALTH: Final = ("status", "reason")

VIEW: Final = View(
    name="services",
    comment="One row per registered instance of a service, from ServiceRegistered until ServiceDeregistered.",
    select="""
        SELECT instance_id, service_name, host, port, health_check_url, metadata,
               CASE WHEN changed THEN status ELSE first_status END AS status,
               CASE WHEN changed THEN status ELSE first_status END = 'healthy' AS is_healthy,
               CASE WHEN changed THEN reason ELSE '' END AS reason,
               registered_at,
               CASE WHEN changed THEN health_at ELSE registered_at END AS status_at,
               partition::integer AS partition,
               CASE WHEN changed THEN health_offset ELSE registered_offset END AS kafka_offset
          FROM (SELECT s.*,
                       coalesce((health_offset, health_number) > (registered_offset, registered_number), false) AS changed
                  FROM {schema}.services s
                 WHERE registered_offset IS NOT NULL
                   AND (deregistered_offset IS NULL
                        OR (registered_offset, registered_number) > (deregistered_offset, deregistered_number))) AS registered""",
    comments={
        "instance_id": "Id of the instance, which is its aggregate id.",
        "service_name": "Name of the service.",
        "host": "Host name or address where it can be called.",
        "port": "Port where it can be called.",
        "health_check_url": "URL that answers GET with 2xx while the instance is healthy.",
        "metadata": "Other data that it was registered with.",
        "status": "starting, healthy, unhealthy or stopping.",
        "is_healthy": "Whether its status is healthy: calls go only to such instances.",
        "reason": "What its status is based on; empty if it has not changed since it was registered.",
        "registered_at": "When it was last registered.",
        "status_at": "When its status last changed.",
        "partition": "Partition of its events.",
        "kafka_offset": "Offset of the event that last changed this row.",
    },
)


class ServicesProjection:
    """See spanfold.projections.projection.Projection."""

    name = "services"
    fold_version = 1
    topics = (SERVICES,)
    metadata = metadata
    views = (VIEW,)

    def fold(self, facts: Sequence[Fact]) -> ServicesPartial:
        partial: ServicesPartial = {}
        numbers: dict[int, int] = {}
        for offset, event_type, fields in facts:
            number = numbers[offset] = numbers.get(offset, -1) + 1
            instance = partial.setdefault(fields["aggregate_id"], InstancePartial())
            place = (offset, number, fields["occurred_at"])
            match cast(ServiceEventType, event_type):
                case "ServiceRegistered":
                    instance.registered = _later(instance.registered, (*place, *_registered(fields)))
                case "ServiceHealthChanged":
                    instance.health = _later(instance.health, (*place, fields["status"], fields["reason"]))
                case "ServiceDeregistered":
                    instance.deregistered = _later(instance.deregistered, place)
                case unknown:
                    assert_never(unknown)
        return partial

    def combine(self, one: ServicesPartial, other: ServicesPartial) -> ServicesPartial:
        combined = dict(one)
        for instance_id, instance in other.items():
            known = one.get(instance_id, InstancePartial())
            combined[instance_id] = InstancePartial(
                _later(known.registered, instance.registered),
                _later(known.health, instance.health),
                _later(known.deregistered, instance.deregistered),
            )
        return combined

    def merge(self, cursor: Cursor[Any], schema: str, partial: ServicesPartial, partition: int) -> None:
        if not partial:
            return
        incoming = _SERVICES.copy_incoming(cursor, schema, _rows(partial, partition))
        table = sql.Identifier(schema, SERVICES_TABLE.name)
        cursor.execute(sql.SQL(MERGE_SERVICES).format(table=table, incoming=incoming))


def _registered(fields: Fields) -> LastEvent:
    return (
        fields["service_name"], fields["host"], fields["port"], fields["health_check_url"], fields["metadata"],
        fields["status"],
    )  # fmt: skip


def _later(one: LastEvent | None, other: LastEvent | None) -> LastEvent | None:
    if one is None or other is None:
        return one or other
    return other if other[:2] > one[:2] else one


def _rows(partial: Mapping[str, InstancePartial], partition: int) -> Iterator[tuple[Any, ...]]:
    for instance_id, instance in partial.items():
        yield (
            instance_id, partition, *_columns(instance.registered, len(_REGISTERED)),
            *_columns(instance.health, len(_HEALTH)), *_columns(instance.deregistered, 0),
        )  # fmt: skip


def _columns(event: LastEvent | None, own: int) -> tuple[Any, ...]:
    """The columns of one event; `own` is how many it has beside offset, number and time."""
    if event is None:
        return (None,) * (3 + own)
    offset, number, occurred_at, *fields = event
    return (offset, number, occurred_at - PG_EPOCH_US, *fields)


def _later_columns(owner: str, columns: Sequence[str]) -> str:
    """SET clauses for the columns of one event type: the later place in the log wins."""
    place = f"({{}}.{owner}_offset, {{}}.{owner}_number)"
    wins = f"t.{owner}_offset IS NULL OR {place.format('excluded', 'excluded')} > {place.format('t', 't')}"
    names = (f"{owner}_offset", f"{owner}_number", f"{owner}_at", *columns)
    return ",\n    ".join(f"{name} = CASE WHEN {wins} THEN excluded.{name} ELSE t.{name} END" for name in names)


MERGE_SERVICES: Final = f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT (instance_id) DO UPDATE SET
    {_later_columns("registered", _REGISTERED)},
    {_later_columns("health", _HEALTH)},
    {_later_columns("deregistered", ())}
"""

_SERVICES: Final = CopyTarget(SERVICES_TABLE)

PROJECTION: Final = ServicesProjection()
