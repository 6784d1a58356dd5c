"""One pruning: alone, planned as a whole, carried out part by part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from spanfold.application.aggregates import installed_aggregates
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.projection import Projection
from spanfold.projections.retention.log_readers import holders
from spanfold.stream_processors.prune import journals, log, tables
from spanfold.stream_processors.prune.parts import Part
from spanfold.stream_processors.prune.retention_context import Site, Watermarks
from spanfold.stream_processors.rebuild.log_reader import LogReader
from spanfold.stream_processors.rebuild.rebuild_context import NullProgress, rebuild_context, session_lock

LOCK: Final = "spanfold prune"


class Audience(Protocol):
    """Who is told what happens; the command line shows it."""

    def step(self, words: str) -> None: ...

    def trimmed(self, table: str, rows: int, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """A part with what is to be done about it."""

    part: Part
    do: Callable[[Audience], None]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What can be let go of, and what can't be done any more afterwards."""

    steps: Sequence[Step]
    remarks: Sequence[str]

    @property
    def parts(self) -> list[Part]:
        """All parts, also those of which nothing can be let go of."""
        return [step.part for step in self.steps]

    def run(self, audience: Audience) -> None:
        """Let go of it."""
        for step in self.steps:
            if step.part.frees:
                audience.step(f"{step.part}: letting go of what lies before {step.part.before}")
                step.do(audience)


@contextmanager
def prune_plan(
    settings: Settings,
    dsn: str,
    topics: Mapping[str, TopicOnBroker],
    projections: Mapping[str, Projection],
) -> Iterator[PrunePlan]:
    """Plan; nothing is changed but by `run`. Until the block ends nobody else prunes, rebuilds, verifies or rolls back.

    Misconfigured when the settings name what there is not, or another process prunes; LogUnavailable when Kafka is away.
    """
    with ExitStack() as stack:
        control = stack.enter_context(session_lock(dsn, LOCK, _busy))
        busy = {}
        for projection in projections.values():
            try:
                stack.enter_context(rebuild_context(settings, dsn, topics, projection, NullProgress()))
            except Misconfigured as error:
                busy[projection.name] = str(error)
        reader = stack.enter_context(LogReader(settings))
        aggregates = [each for each in installed_aggregates().values() if each.topic.name in topics]
        seen = holders(control, aggregates)
        watermarks = _watermarks(reader, topics)
        site = Site(
            settings, control, topics, projections, busy, reader, seen, watermarks, holders(control, aggregates)
        )
        yield _planned(site)


def _planned(site: Site) -> PrunePlan:
    """Tables first, the log last: what is read again needs the log."""
    rows, days, records = tables.plan(site), journals.plan(site), log.plan(site)
    steps = [
        *(Step(part, _trimming(site, each)) for part, each in rows),
        *(Step(part, _dropping(site, each)) for part, each in days),
        *(Step(part, _deleting(site, part, cut)) for part, cut in records),
    ]
    return PrunePlan(steps, [*log.remarks(site, records), *tables.remarks(site)])


def _trimming(site: Site, found: tables.Trimming) -> Callable[[Audience], None]:
    return lambda audience: tables.let_go(site, found, audience.trimmed)


def _dropping(site: Site, found: journals.Leaving) -> Callable[[Audience], None]:
    return lambda _: journals.let_go(site, found)


def _deleting(site: Site, part: Part, cut: int) -> Callable[[Audience], None]:
    return lambda _: log.delete(site.settings, site.topics[part.name], part.partition or 0, cut)


def _watermarks(reader: LogReader, topics: Mapping[str, TopicOnBroker]) -> Watermarks:
    return {
        (name, partition): reader.watermarks(topic.name, partition)
        for name, topic in topics.items()
        for partition in range(topic.partitions)
    }


def _busy(holder: str) -> str:
    return f"another `spanfold prune` is at work, in the Postgres session of {holder}: wait for it, or end it first"
