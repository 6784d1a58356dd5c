"""Erasing a trace: what the tables have of it, the events that erase it, and what still has it afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from spanfold.language.errors import InvalidInput, Misconfigured, NotFound
from spanfold.language.events import TraceErased
from spanfold.language.json_values import time_text
from spanfold.language.positions import Position
from spanfold.language.times import now_us
from spanfold.language.topics import LOGS, Topic, installed_topics
from spanfold.operations.installation import Installation, user_at_host
from spanfold.operations.reading import reading
from spanfold.operations.trace_ids import id_of_trace_hex
from spanfold.operations.visibility import wait_until_visible
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.projection import ErasesTraces, Projection, installed


@dataclass(frozen=True, slots=True)
class Erasure:
    """Where a TraceErased lies, and when the log had it (µs since 1970 UTC)."""

    position: Position
    log_time: int

    def __str__(self) -> str:
        return f"{self.position}, in the log since {time_text(self.log_time)}"


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was erased of a trace. `records` are judged records by topic, `rows` those of the public views by name, as they were
    before; `erasures` one for each topic; `kept_in` names tables that may still have the trace, with what to do about each.
    """

    trace_id: str
    erased_before: bool
    records: Mapping[str, int]
    rows: Mapping[str, int]
    erasures: Sequence[Erasure]
    kept_in: Sequence[str]


@dataclass(frozen=True, slots=True)
class TraceContents:
    """What the tables have of a trace. `erasures` are by topic; `span_count` is what the trace has counted. `is_service`: a
    service of this name has logged errors outside of traces. `pruned`: old spans are gone, and no comparison asks any more
    what they have added to rollups (docs/adr/0015).
    """

    trace_id: str
    erasures: Mapping[str, Erasure]
    records: Mapping[str, int]
    rows: Mapping[str, int]
    span_count: int
    is_service: bool
    pruned: bool = False

    @property
    def known(self) -> bool:
        """Whether there is anything to erase."""
        return any(self.records.values()) or any(self.rows.values())

    @property
    def not_erased_on(self) -> list[Topic]:
        """The topics that have no TraceErased of it."""
        return [topic for topic in erasable_topics() if topic.name not in self.erasures]


def erase(
    installation: Installation, trace_id: str, *, why: str = "", even_if_unknown: bool = False, timeout_s: float = 30.0
) -> ErasureReport:
    """Erase all that the tables have of the trace with this id, or else with this trace_hex, for ever; see
    `spanfold erase --help`. Doing it again changes nothing.

    Returns when the tables have passed the facts; `timeout_s` bounds the wait for Kafka, and that for the tables. NotFound when
    nothing is known of the trace, unless `even_if_unknown`; StoreUnavailable when no worker has passed the facts in time: calling
    it again is safe.
    """
    contents = contents_to_erase(installation, trace_id, even_if_unknown=even_if_unknown)
    return erase_contents(installation, contents, why=why, timeout_s=timeout_s)


def contents_to_erase(installation: Installation, trace_id: str, *, even_if_unknown: bool = False) -> TraceContents:
    """What `erase` would erase, and its refusals: InvalidInput when it is no trace's id, NotFound when nothing is known of it,
    Misconfigured when rows that would have to be taken off are gone.
    """
    contents = _contents(installation.dsn, trace_id)
    if not contents.known and not contents.erasures:
        other = id_of_trace_hex(installation.dsn, trace_id)
        contents = contents if other is None else _contents(installation.dsn, other)
    if contents.not_erased_on:
        _refuse(contents, even_if_unknown)
    return contents


def erase_contents(
    installation: Installation, contents: TraceContents, *, why: str = "", timeout_s: float = 30.0
) -> ErasureReport:
    """Erase what `contents_to_erase` returned."""
    dsn, trace_id, topics = installation.dsn, contents.trace_id, contents.not_erased_on
    if topics:
        event = TraceErased(aggregate_id=trace_id, occurred_at=now_us(), source=user_at_host(), why=why)
        positions = _append(installation, event, topics, timeout_s)
        wait_until_visible(dsn, {(at.topic, at.partition): at.offset + 1 for at in positions}, timeout_s)
        _refuse_unheard(positions, erasures_of(dsn, trace_id))
    erasures = erasures_of(dsn, trace_id)
    return ErasureReport(
        trace_id=trace_id,
        erased_before=not topics,
        records=contents.records,
        rows=contents.rows,
        erasures=list(erasures.values()),
        kept_in=_what_keeps_it(dsn, installed()),
    )


def erasable_topics() -> list[Topic]:
    """The topics whose keys are trace ids."""
    return [topic for topic in installed_topics() if topic.erasable]


def erasures_of(dsn: str, trace_id: str) -> Mapping[str, Erasure]:
    """Where the trace was erased, by topic."""
    with reading(dsn, "spanfold erase") as connection:
        return _erasures(connection, {"trace_id": trace_id})


def _contents(dsn: str, trace_id: str) -> TraceContents:
    """What the tables have of the trace, at one moment. Misconfigured when the database is not up to date."""
    about = {"trace_id": trace_id, "topics": [topic.name for topic in erasable_topics()], "logs": LOGS.name}
    with reading(dsn, "spanfold erase") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        rows = {view: _count(connection, query, about) for view, query in ROWS.items()}
        return TraceContents(
            trace_id=trace_id,
            erasures=_erasures(connection, about),
            records=dict(connection.execute(RECORDS, about).fetchall()),
            rows=rows,
            span_count=_count(connection, SPAN_COUNT, about),
            is_service=bool(_count(connection, IS_SERVICE, about)),
            pruned=bool(_count(connection, PRUNED, about)),
        )


def _refuse(contents: TraceContents, even_if_unknown: bool) -> None:
    trace_id = contents.trace_id
    if contents.is_service:
        raise InvalidInput(
            f"{trace_id} is not a trace but a service: errors that it logged outside of traces have its name as their key"
        )
    if not contents.known and not contents.erasures and not even_if_unknown:
        raise NotFound(
            f"no table knows trace {trace_id}. With --even-if-unknown it is erased anyway, and records of it that arrive later "
            "are rejected"
        )
    spans = contents.rows["spans"]
    if spans < contents.span_count and not contents.pruned:
        raise Misconfigured(
            f"trace {trace_id} had {contents.span_count:,} spans, but only {spans:,} rows are left: what the others added to "
            "operation_minutes and service_dependencies can't be subtracted. Nothing was changed"
        )


def _append(
    installation: Installation, event: TraceErased, topics: Sequence[Topic], timeout_s: float
) -> list[Position]:
    """Append the fact to each of these topics. LogUnavailable when Kafka does not acknowledge: doing it again is safe."""
    positions = []
    with TelemetryPublisher(installation.settings, block_timeout_s=timeout_s, message_timeout_s=timeout_s) as publisher:
        for topic in topics:
            delivery = publisher.publish_and_wait(event, topic=topic, timeout_s=timeout_s)
            positions.append(Position(topic.name, delivery.partition, delivery.offset))
    return positions


def _refuse_unheard(positions: Sequence[Position], erasures: Mapping[str, Erasure]) -> None:
    """Misconfigured when one of the facts has been passed and the trace is not erased on its topic."""
    for position in positions:
        if position.topic not in erasures:
            raise Misconfigured(
                f"the TraceErased at {position} was judged but erased nothing: look it up in `spanfold.verdicts`. If it was not "
                "rejected, a worker of an older version passed it: upgrade all workers, then erase the trace again"
            )


def _what_keeps_it(dsn: str, projections: Mapping[str, Projection]) -> list[str]:
    """Tables that may still have an erased trace, each with what to do about it."""
    topics = {topic.name for topic in erasable_topics()}
    with reading(dsn, "spanfold erase") as connection:
        rows = connection.execute(GENERATIONS).fetchall()
    concerned = {
        name: projection
        for name, projection in projections.items()
        if topics & {topic.name for topic in projection.topics}
    }
    reasons = [_why_kept(concerned[name], *generation) for name, *generation in rows if name in concerned]
    return [reason for reason in reasons if reason]


def _why_kept(projection: Projection, number: int, state: str, fold_version: int, schema: str) -> str:
    name = projection.name
    if not isinstance(projection, ErasesTraces):
        return (
            f"{schema}: {name} has no `erase`; run `spanfold rebuild {name} --accept-differences`, which leaves the trace out, "
            f"then `spanfold projections drop-previous {name}`"
        )
    if state == "loading":
        return f"{schema}: is being loaded, and loses the trace before it goes live; `spanfold rebuild {name} --abort` drops it"
    if fold_version == projection.fold_version or state in ("live", "following"):
        return ""
    drop = (
        f"spanfold as-of --drop {schema.removesuffix(f'_{name}')}"
        if state == "as_of"
        else f"spanfold projections drop-previous {name}"
    )
    return f"{schema}: was made by fold version {fold_version}, this code has {projection.fold_version}; drop it with `{drop}`"


def _count(connection: psycopg.Connection[Any], query: str, about: Mapping[str, Any]) -> int:
    ((count,),) = connection.execute(query.encode(), about).fetchall()
    return int(count)


def _erasures(connection: psycopg.Connection[Any], about: Mapping[str, Any]) -> dict[str, Erasure]:
    rows = connection.execute(ERASED, about)
    return {topic: Erasure(Position(topic, partition, offset), at) for topic, partition, offset, at in rows}


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
    **{view: _ROWS.format(view=view) for view in ("traces", "spans", "logs")},
    "snapshots": "SELECT count(*) FROM spanfold.snapshots WHERE topic = ANY (%(topics)s) AND aggregate_id = %(trace_id)s",
}

SPAN_COUNT: Final = "SELECT coalesce(sum(span_count), 0) FROM spanfold.traces WHERE trace_id = %(trace_id)s"

IS_SERVICE: Final = """
SELECT EXISTS (SELECT FROM spanfold.logs WHERE service_name = %(trace_id)s AND trace_id IS NULL)
"""

PRUNED: Final = (
    "SELECT EXISTS (SELECT FROM spanfold.retention_horizons WHERE (projection, table_name) = ('traces', 'spans'))"
)

GENERATIONS: Final = """
SELECT projection, generation, state, fold_version, schema_name FROM spanfold.projections ORDER BY projection, generation
"""
