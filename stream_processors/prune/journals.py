"""Days of the telemetry journals: a day goes when no event of it can be accepted any more and nobody needs its records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from spanfold.language.topics import US_PER_DAY, Topic, TopicKind
from spanfold.projections.retention.journal_days import JournalDay, drop, ends_of, journal_days, let_go_before, remember
from spanfold.projections.retention.rules import journal_retentions, late_days
from spanfold.stream_processors.prune.parts import Bound, Part, begin_of, day_of, least
from spanfold.stream_processors.prune.retention_context import Site


@dataclass(frozen=True, slots=True)
class Leaving:
    """Days that go, and by partition the offset after their last records."""

    topic: Topic
    days: Sequence[JournalDay]
    ends: dict[int, int]


def plan(site: Site) -> list[tuple[Part, Leaving]]:
    """A part for each journal by day."""
    topics = [each.topic for each in site.topics.values()]
    retentions = journal_retentions(site.settings.journal_retention_days, topics)
    return [
        _plan(site, topic, retentions.get(topic.name))
        for topic in topics
        if topic.kind is TopicKind.TELEMETRY and topic.journaled
    ]


def _plan(site: Site, topic: Topic, days: int | None) -> tuple[Part, Leaving]:
    gone, now = let_go_before(site.control, topic), site.now
    bound = Bound(-1, "no retention set")
    if days is not None:
        bound = least(_bounds(site, topic, days, now)) if now is not None else Bound(-1, "nothing has been judged yet")
    leaving, records, ends, held_by = [], 0, dict[int, int](), bound.words
    for day in journal_days(site.control, topic):
        # a process that was killed had decided on these
        if gone is None or day.day >= gone:
            if begin_of(day.day) + US_PER_DAY > bound.at:
                break
            count, after = ends_of(site.control, day)
            if holder := _needed_by(site, topic, after):
                held_by = f"{holder}, and {day.day} has records beyond"
                break
            records, ends = records + count, {at: max(ends.get(at, 0), end) for at, end in (ends | after).items()}
        leaving.append(day)
    before = str(leaving[-1].day + timedelta(days=1)) if leaving else None
    size = sum(day.bytes for day in leaving)
    return Part("journal", topic.name, None, records, before, held_by, len(leaving), size), Leaving(
        topic, leaving, ends
    )


def _bounds(site: Site, topic: Topic, days: int, now: int) -> Iterator[Bound]:
    """Times before which a day must have ended."""
    since = now - days * US_PER_DAY
    yield Bound(since, f"{days} days before the last record begin on {day_of(since)}")
    slowest = site.slowest([each for each in site.holders if each.topic == topic.name])
    if slowest is not None:
        late = late_days(topic)
        yield Bound(
            slowest.at - late * US_PER_DAY, f"an event may come {late} days late, margin included, and {slowest.words}"
        )


def _needed_by(site: Site, topic: Topic, ends: dict[int, int]) -> str | None:
    """Who has not read all records of a day that ends so."""
    for each in site.holders:
        if each.topic == topic.name and each.next_offset < ends.get(each.partition, 0):
            return f"{each} in {each.topic}[{each.partition}]"
    return None


def let_go(site: Site, leaving: Leaving) -> None:
    """Remember that they are gone, then drop them."""
    remember(site.control, leaving.topic, leaving.days[-1].day + timedelta(days=1), leaving.ends)
    drop(site.control, leaving.topic, leaving.days)
