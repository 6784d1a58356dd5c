"""Days of the telemetry journals: a day goes when no event of it can be accepted any more and nobody needs its records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from spanfold.language.topics import US_PER_DAY, Topic, TopicKind
from spanfold.projections.retention.journal_days import JournalDay, drop, ends_of, journal_days, kept_from, remember
from spanfold.projections.retention.rules import journal_retentions, late_days
from spanfold.stream_processors.prune.parts import NO_RETENTION, NOTHING_JUDGED, Bound, Part, begin_of, day_of, least
from spanfold.stream_processors.prune.retention_context import RetentionContext


@dataclass(frozen=True, slots=True)
class DoomedDays:
    """Days of a topic's journal that go; how many records they still show, and by partition the offset after the last one."""

    topic: Topic
    days: Sequence[JournalDay] = ()
    records: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)

    @property
    def before(self) -> date | None:
        """The first day that is kept."""
        return self.days[-1].day + timedelta(days=1) if self.days else None


def plan(context: RetentionContext) -> list[tuple[Part, DoomedDays]]:
    """A part for each journal by day."""
    topics = [topic.topic for topic in context.topics.values()]
    retentions = journal_retentions(context.settings.journal_retention_days, topics)
    return [
        _plan_journal(context, topic, retentions.get(topic.name))
        for topic in topics
        if topic.kind is TopicKind.TELEMETRY and topic.journaled
    ]


def _plan_journal(context: RetentionContext, topic: Topic, days: int | None) -> tuple[Part, DoomedDays]:
    doomed, held_by = _doomed_days(context, topic, _bound(context, topic, days))
    before = str(doomed.before) if doomed.before else None
    size = sum(day.bytes for day in doomed.days)
    return Part("journal", topic.name, None, doomed.records, before, held_by, len(doomed.days), size), doomed


def _bound(context: RetentionContext, topic: Topic, days: int | None) -> Bound:
    """The time before which a day must have ended."""
    if days is None or context.now is None:
        return Bound(-1, NO_RETENTION if days is None else NOTHING_JUDGED)
    return least(_bounds(context, topic, days, context.now - days * US_PER_DAY))


def _bounds(context: RetentionContext, topic: Topic, days: int, since: int) -> Iterator[Bound]:
    yield Bound(since, f"{days} days before the last record begin on {day_of(since)}")
    slowest = context.slowest(reader for reader in context.readers if reader.topic == topic.name)
    if slowest is not None:
        late = late_days(topic)
        words = f"an event may come {late} days late, margin included, and {slowest.words}"
        yield Bound(slowest.at - late * US_PER_DAY, words)


def _doomed_days(context: RetentionContext, topic: Topic, bound: Bound) -> tuple[DoomedDays, str]:
    """The oldest days that nothing holds back, and what holds the next one back."""
    kept = kept_from(context.control, topic)
    doomed = DoomedDays(topic)
    for day in journal_days(context.control, topic):
        if kept is not None and day.day < kept:
            # a process that was killed had decided on this one already
            doomed = DoomedDays(topic, (*doomed.days, day), doomed.records, doomed.ends)
            continue
        if begin_of(day.day) + US_PER_DAY > bound.at:
            return doomed, bound.words
        records, ends = ends_of(context.control, day)
        if reader := _needed_by(context, topic, ends):
            return doomed, f"{reader}, and {day.day} has records beyond"
        doomed = DoomedDays(topic, (*doomed.days, day), doomed.records + records, _later(doomed.ends, ends))
    return doomed, bound.words


def _needed_by(context: RetentionContext, topic: Topic, ends: Mapping[int, int]) -> str | None:
    """Who has not read all records of a day that ends so."""
    for reader in context.readers:
        if reader.topic == topic.name and reader.next_offset < ends.get(reader.partition, 0):
            return f"{reader} in {reader.topic}/{reader.partition}"
    return None


def _later(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {partition: max(one.get(partition, 0), other.get(partition, 0)) for partition in one.keys() | other.keys()}


def delete(context: RetentionContext, doomed: DoomedDays) -> None:
    """Remember that the days are gone, then drop them."""
    if doomed.before is not None:
        remember(context.control, doomed.topic, doomed.before, doomed.ends)
        drop(context.control, doomed.topic, doomed.days)
