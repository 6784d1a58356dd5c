"""One generation that is being loaded, for as long as one process works on it: where it stands, and how to get it further."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psycopg
from sqlalchemy import Engine
from sqlalchemy import text as sql_text

from spanfold.application.aggregates import aggregate_of
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.connections import connect
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.shadow import Positions, Shadow, positions_of
from spanfold.projections.generations.swap import Session
from spanfold.projections.projection import Projection, why_not_from_states
from spanfold.projections.retention.retention_horizons import horizons_of, trim
from spanfold.projections.states.reading import states_of
from spanfold.projections.states.rows import Place
from spanfold.stream_processors.rebuild.replay import LogReader, Stretch, Target, load, load_in_processes
from spanfold.stream_processors.worker import gc_tuning

FEW: Final = 50_000
"""So many records are loaded in this process: starting others takes longer."""


WAITED_FOR_S: Final = 1.0
"""Kafka must not be silent for longer while commits wait."""


class Audience(Protocol):
    """Who is told what happens; the command line shows it."""

    def step(self, words: str) -> None: ...

    def loaded(self, done: int, total: int) -> None: ...

    def waiting(self, sessions: list[Session]) -> None: ...


class Nobody:
    """An audience that does not listen."""

    def step(self, words: str) -> None: ...

    def loaded(self, done: int, total: int) -> None: ...

    def waiting(self, sessions: list[Session]) -> None: ...


@dataclass(frozen=True, slots=True)
class Workplace:
    """What work on one projection's generations needs. `control` holds the lock that says who works on them."""

    settings: Settings
    dsn: str
    engine: Engine
    control: psycopg.Connection[Any]
    projection: Projection
    topics: Mapping[str, TopicOnBroker]
    audience: Audience

    def all(self) -> list[GenerationRow]:
        """The projection's generations, oldest first."""
        with self.engine.begin() as connection:
            return lifecycle.generations_of(connection, self.projection.name)

    def in_state(self, *states: str) -> GenerationRow | None:
        """The newest generation in one of these states."""
        return next((each for each in reversed(self.all()) if each.state in states), None)

    def drop(self, generation: GenerationRow) -> None:
        """Drop a generation that is not live, with its tables."""
        with self.engine.begin() as connection:
            lifecycle.drop_generation(connection, self.projection.name, generation)

    def judged(self) -> Positions:
        """How far the records of the projection's topics have been judged."""
        names = {topic.name for topic in self.projection.topics}
        return {at: end for at, end in positions_of(self.control, JOURNAL, 0).items() if at[0] in names}


@contextmanager
def workplace(
    settings: Settings,
    dsn: str,
    topics: Mapping[str, TopicOnBroker],
    projection: Projection,
    audience: Audience,
    tablespace: str = "",
) -> Iterator[Workplace]:
    """Alone with the generations of this projection, whose topics are among these; new tables go to the tablespace.
    Misconfigured when another process is at work on them.
    """
    options = {"options": f"-c default_tablespace={tablespace}"} if tablespace else {}
    engine = engine_of(dsn, **options)
    gc_tuning.tune()
    with ExitStack() as stack:
        control = stack.enter_context(connect(dsn, f"spanfold rebuild {projection.name}"))
        _be_alone(control, projection.name)
        stack.callback(let_others, control)
        yield Workplace(settings, dsn, engine, control, projection, topics, audience)


def _be_alone(control: psycopg.Connection[Any], projection: str) -> None:
    key = f"spanfold rebuild {projection}"
    if control.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone() == (True,):
        return
    holder = control.execute(HOLDER, (key,)).fetchone()
    who = "another session" if holder is None else "pid {} on {}, since {}".format(*holder)
    raise Misconfigured(
        f"{projection} is being rebuilt, verified, rolled back, loaded as of a time or pruned already, by the Postgres "
        f"session of {who}: wait for it, or end it first"
    )


def let_others(control: psycopg.Connection[Any]) -> None:
    """Give back what this session is alone with, at once: a session ends some time after it was left."""
    with suppress(psycopg.Error):
        control.execute("SELECT pg_advisory_unlock_all()")


class Loading:
    """Gets one generation further. `close` it."""

    def __init__(self, place: Workplace, generation: GenerationRow, workers: int) -> None:
        self._place, self._generation, self._workers = place, generation, workers
        self._shadow = Shadow(place.projection, generation.number, generation.schema)
        self._connection = connect(place.dsn, "spanfold load")
        self.reader = LogReader(place.settings)
        self.folded = 0
        """Records passed so far, by this process or for it."""

    def close(self) -> None:
        self.reader.close()
        self._connection.close()

    def positions(self) -> Positions:
        """Where the generation stands."""
        return positions_of(self._place.control, self._place.projection.name, self._generation.number)

    def load_states(self) -> int:
        """Begin each partition that has nothing yet with the states of its aggregates; returns how many there were."""
        count = 0
        for (name, partition), at in sorted(self.positions().items()):
            if at == 0:
                self._place.audience.step(f"loading states of {name}[{partition}]")
                aggregate = aggregate_of(self._place.topics[name].topic)
                where = Place(aggregate.topic, partition, aggregate.fold_version)
                with (
                    connect(self._place.dsn, "spanfold load states") as reading,
                    states_of(reading, aggregate, where) as standing,
                ):
                    count += self._shadow.commit_states(self._connection, where, standing)
        return count

    def load(self, until: Positions) -> None:
        """Fold the log up to these positions; the audience hears how far it is."""
        before, stretches = self.positions(), self._stretches(until)
        total = sum(each.end - each.start for each in stretches)
        if total <= FEW or self._workers < 1:
            load(self.reader, self._connection, self._shadow, stretches)
        else:
            target = Target(
                self._place.projection.name, self._generation.number, self._generation.schema, self._place.dsn
            )

            def tell() -> None:
                self._place.audience.loaded(_distance(before, self.positions()), total)

            load_in_processes(self._place.settings, target, stretches, self._workers, tell)
        self._place.audience.loaded(total, total)
        self.folded += total

    def catch_up(self, few: int) -> None:
        """Fold until at most `few` judged records are left."""
        while _distance(self.positions(), judged := self._place.judged()) > few:
            self.load(judged)

    def fold_rest(self, connection: psycopg.Connection[Any], until: Positions) -> None:
        """Fold up to these positions inside the transaction of `connection`, for which others wait: LogUnavailable soon."""
        for batch in self.reader.batches(self._stretches(until), WAITED_FOR_S):
            self._shadow.commit(connection, self._shadow.prepare(batch))
            # temporary tables are emptied by a commit, and there will be one for all batches
            connection.execute("DISCARD TEMP")

    def _stretches(self, until: Positions) -> list[Stretch]:
        return [
            Stretch(self._place.topics[name], partition, at, until[name, partition])
            for (name, partition), at in self.positions().items()
            if at < until[name, partition]
        ]

    def trim(self) -> None:
        """Delete what lies before the horizons of the projection's tables: nothing that was let go of comes back."""
        projection = self._place.projection
        horizons = horizons_of(self._connection, projection.name)
        trim(self._connection, self._generation.schema, projection.metadata, horizons)

    def create_indexes(self) -> None:
        """Those that the fold did without; and tell the planner what there is."""
        with self._place.engine.begin() as connection:
            lifecycle.create_indexes(connection, self._place.projection, self._generation, [False])
            for table in self._place.projection.metadata.sorted_tables:
                connection.execute(sql_text(f'ANALYZE "{self._generation.schema}"."{table.name}"'))


def refuse_what_the_log_lacks(place: Workplace, reader: LogReader, start: Positions, until: Positions) -> None:
    """Misconfigured when the log does not hold every record between these positions."""
    what, way_out = place.projection.name, ""
    if why_not_from_states(place.projection) is None:
        way_out = f" `spanfold rebuild {what} --from-snapshot` begins with what the snapshot worker keeps."
    for (name, partition), begin in start.items():
        topic, end = place.topics[name], until[name, partition]
        first, last = reader.watermarks(topic.name, partition)
        if begin < end and (first > begin or last < end):
            raise Misconfigured(
                f"the log of {topic.name}[{partition}] holds offsets {first} to {last}, to load {what} it takes {begin} "
                f"to {end}: what is gone from the log can't be folded again.{way_out} Nothing was changed."
            )


def _distance(start: Positions, end: Positions) -> int:
    return sum(max(0, end[at] - position) for at, position in start.items())


HOLDER: Final = """
SELECT a.pid, coalesce(host(a.client_addr), 'this machine'), to_char(a.backend_start, 'HH24:MI:SS')
  FROM pg_locks l
  JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%s, 0)
"""
