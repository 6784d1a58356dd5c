"""What the tables have of a trace before it is erased, appending the facts that erase it, and what they leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from spanfold.cli.sql import reading
from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.language.events import TraceErased
from spanfold.language.json_values import time_text
from spanfold.language.positions import Position
from spanfold.language.topics import LOGS, Topic, installed_topics
from spanfold.producers.delivery import Delivery
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.projection import ErasesTraces, Projection


class Unknown(InvalidInput):
    """No table has anything of the trace."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Erased:
    """Where TraceErased lies, and when the log had it (µs since 1970 UTC)."""

    position: Position
    log_time: int

    def __str__(self) -> str:
        return f"{self.position}, in the log since {time_text(self.log_time)}"


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a trace. `records` are judged records by topic, `rows` those of the public views by name. `span_count` is
    what the trace has counted. `is_service`: a service of this name has logged errors outside of traces. `let_go`: old spans have
    been let go of, and no comparison asks any more what they have added to rollups (docs/adr/0015).
    """

    erased: Mapping[str, Erased]
    records: Mapping[str, int]
    rows: Mapping[str, int]
    span_count: int
    is_service: bool
    let_go: bool = False

    @property
    def something(self) -> bool:
        """Whether there is anything to erase."""
        return any(self.records.values()) or any(self.rows.values())


def erasable_topics() -> list[Topic]:
    """The topics whose keys are trace ids."""
    return [topic for topic in installed_topics() if topic.erasable]


def look_up(dsn: str, trace_id: str) -> Found:
    """What the tables have of the trace, at one moment. Misconfigured when the database is not up to date."""
    about = {"trace_id": trace_id, "topics": [topic.name for topic in erasable_topics()], "logs": LOGS.name}
    with reading(dsn, application_name="spanfold erase") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        rows = {view: _count(connection, query, about) for view, query in ROWS.items()}
        return Found(
            erased=_erasures(connection, about),
            records=dict(connection.execute(RECORDS, about).fetchall()),
            rows=rows,
            span_count=_count(connection, SPAN_COUNT, about),
            is_service=bool(_count(connection, IS_SERVICE, about)),
            let_go=bool(_count(connection, LET_GO, about)),
        )


def erasures_of(dsn: str, trace_id: str) -> Mapping[str, Erased]:
    """Where the trace was erased, by topic."""
    with reading(dsn, application_name="spanfold erase") as connection:
        return _erasures(connection, {"trace_id": trace_id})


def refuse(trace_id: str, found: Found, even_if_unknown: bool) -> None:
    """InvalidInput when it is no trace's id, Unknown when nothing is known of it, Misconfigured when rows that would have to be
    taken off are gone.
    """
    if found.is_service:
        raise InvalidInput(
            f"{trace_id} is the name of a service, whose errors outside of traces have it as their key: they are no trace's"
        )
    if not found.something and not found.erased and not even_if_unknown:
        raise Unknown(
            f"nothing is known of a trace {trace_id}. --even-if-unknown erases it nevertheless: records of it that are still to "
            "come are rejected"
        )
    spans = found.rows["spans"]
    if spans < found.span_count and not found.let_go:
        raise Misconfigured(
            f"trace {trace_id} has counted {found.span_count:,} spans, and {spans:,} are left: what the others have added to "
            "operation_minutes and service_dependencies can't be taken off again. Nothing was changed"
        )


def append(
    publisher: TelemetryPublisher, event: TraceErased, topics: Sequence[Topic], timeout_s: float
) -> list[Position]:
    """Append the fact to each of these topics. LogUnavailable when Kafka does not acknowledge: doing it again is safe."""
    positions = []
    for topic in topics:
        delivery: Delivery = publisher.publish_and_wait(event, topic=topic, timeout_s=timeout_s)
        positions.append(Position(topic.name, delivery.partition, delivery.offset))
    return positions


def refuse_unheard(positions: Sequence[Position], erased: Mapping[str, Erased]) -> None:
    """Misconfigured when one of the facts has been passed and the trace is not erased on its topic."""
    for position in positions:
        if position.topic not in erased:
            raise Misconfigured(
                f"the fact at {position} has been judged, and has erased nothing: `spanfold.verdicts` tells if it was rejected; "
                "else a worker of an older version has passed it. Upgrade all workers, then erase the trace again"
            )


def what_keeps_it(dsn: str, projections: Mapping[str, Projection]) -> list[str]:
    """Tables that may still have the trace, each with what to do about it."""
    topics = {topic.name for topic in erasable_topics()}
    with reading(dsn, application_name="spanfold erase") as connection:
        rows = connection.execute(GENERATIONS).fetchall()
    concerned = {name: each for name, each in projections.items() if topics & {topic.name for topic in each.topics}}
    said = [_why_kept(concerned[name], *generation) for name, *generation in rows if name in concerned]
    return [words for words in said if words]


def _why_kept(projection: Projection, number: int, state: str, fold_version: int, schema: str) -> str:
    name = projection.name
    if not isinstance(projection, ErasesTraces):
        return (
            f"{schema}: {name} does not say how a trace is erased from its tables; `spanfold rebuild {name} "
            f"--accept-differences` folds it without, then `spanfold projections drop-previous {name}`"
        )
    if state == "loading":
        return f"{schema}: is being loaded, and loses it before it is live; `spanfold rebuild {name} --abort` drops it"
    if fold_version == projection.fold_version or state in ("live", "following"):
        return ""
    drop = (
        f"spanfold as-of --drop {schema.removesuffix(f'_{name}')}"
        if state == "as_of"
        else f"spanfold projections drop-previous {name}"
    )
    return f"{schema}: was made by fold version {fold_version}, this code has {projection.fold_version}; `{drop}`"


def _count(connection: psycopg.Connection[Any], query: str, about: Mapping[str, Any]) -> int:
    ((count,),) = connection.execute(query.encode(), about).fetchall()
    return int(count)


def _erasures(connection: psycopg.Connection[Any], about: Mapping[str, Any]) -> dict[str, Erased]:
    rows = connection.execute(ERASED, about)
    return {topic: Erased(Position(topic, partition, offset), at) for topic, partition, offset, at in rows}


ERASED: Final = """
SELECT topic, partition, kafka_offset, (extract(epoch FROM log_time) * 1000000)::bigint
  FROM spanfold.erased
 WHERE aggregate_id = %(trace_id)s
 ORDER BY topic DESC
"""

RECORDS: Final = """
SELECT topic, count(*) FROM spanfold.verdicts
 WHERE topic = ANY (%(topics)s) AND aggregate_id = %(trace_id)s
 GROUP BY topic
 ORDER BY topic DESC
"""

_ROWS: Final = "SELECT count(*) FROM spanfold.{view} WHERE trace_id = %(trace_id)s"

ROWS: Final = {
    **{view: _ROWS.format(view=view) for view in ("traces", "spans", "error_logs")},
    "snapshots": "SELECT count(*) FROM spanfold.snapshots WHERE topic = ANY (%(topics)s) AND aggregate_id = %(trace_id)s",
}

SPAN_COUNT: Final = "SELECT coalesce(sum(span_count), 0) FROM spanfold.traces WHERE trace_id = %(trace_id)s"

IS_SERVICE: Final = """
SELECT EXISTS (SELECT FROM spanfold.error_logs WHERE service_name = %(trace_id)s AND trace_id IS NULL)
"""

LET_GO: Final = (
    "SELECT EXISTS (SELECT FROM spanfold.retention_horizons WHERE (projection, table_name) = ('traces', 'spans'))"
)

GENERATIONS: Final = """
SELECT projection, generation, state, fold_version, schema_name FROM spanfold.projections ORDER BY projection, generation
"""
