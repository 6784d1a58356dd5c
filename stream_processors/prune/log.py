"""Kafka's records: deleted from the beginning of each partition, up to what somebody still needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.errors import LogUnavailable
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.topics import US_PER_DAY, TopicKind, TopicOnBroker
from spanfold.projections.projection import folding, why_not_from_states
from spanfold.projections.retention.rules import log_retentions
from spanfold.stream_processors.prune.parts import NO_RETENTION, NOTHING_JUDGED, Bound, Part, least, most, time_text
from spanfold.stream_processors.prune.retention_context import RetentionContext

ANSWER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Cut:
    """The records of a partition before `offset` go."""

    topic: TopicOnBroker
    partition: int
    offset: int


def plan(context: RetentionContext) -> list[tuple[Part, Cut | None]]:
    """A part for each partition of the topics that have a retention; one for each other topic, with nothing to cut."""
    topics = [topic.topic for topic in context.topics.values()]
    retentions = log_retentions(context.settings.log_retention_days, topics)
    return [
        planned
        for topic in context.topics.values()
        for planned in _plan_topic(context, topic, retentions.get(topic.topic.name))
    ]


def _plan_topic(context: RetentionContext, topic: TopicOnBroker, days: int | None) -> Iterator[tuple[Part, Cut | None]]:
    name = topic.topic.name
    has_retention = days is not None or any(of == name for of, _ in context.begins_by_size)
    if not has_retention or context.now is None:
        yield Part("log", name, None, 0, None, NOTHING_JUDGED if has_retention else NO_RETENTION), None
        return
    for partition in range(topic.partitions):
        first = context.watermarks[name, partition][0]
        old = [*_by_age(context, name, partition, days, context.now), *_by_size(context, name, partition)]
        bound = least([most(old), *_readers(context, topic, partition)])
        cut = Cut(topic, partition, max(first, bound.at))
        yield Part("log", name, partition, cut.offset - first, f"offset {cut.offset}", bound.words), cut


def _by_age(context: RetentionContext, name: str, partition: int, days: int | None, now: int) -> Iterator[Bound]:
    if days is not None:
        since = now - days * US_PER_DAY
        at = context.offset_at(name, partition, since)
        yield Bound(at, f"{days} days before the last record, {time_text(since)}, begin at {at}")


def _by_size(context: RetentionContext, name: str, partition: int) -> Iterator[Bound]:
    at = context.begins_by_size.get((name, partition))
    if at is not None:
        size = context.settings.log_retention_bytes[name]
        yield Bound(at, f"the newest {size} bytes begin at {at}")


def _readers(context: RetentionContext, topic: TopicOnBroker, partition: int) -> Iterator[Bound]:
    name = topic.topic.name
    for reader in context.readers:
        if (reader.topic, reader.partition) == (name, partition):
            yield Bound(reader.next_offset, str(reader))
    if (parked := context.parked_in_log.get((name, partition))) is not None:
        position = Position(name, partition, parked)
        yield Bound(parked, f"the parked record {position} has its bytes in the log alone; retry or discard it")
    for projection, who in context.busy.items():
        # it may load as of a time, which is no reader, or be about to load from the log's start
        if topic.topic in context.projections[projection].topics:
            yield Bound(0, who)


def delete(settings: Settings, cut: Cut) -> None:
    """Delete the partition's records before the cut. LogUnavailable when Kafka does not confirm that it did."""
    admin = AdminClient(kafka_config(settings))
    before = TopicPartition(cut.topic.name, cut.partition, cut.offset)
    (future,) = admin.delete_records([before], request_timeout=ANSWER_S, operation_timeout=ANSWER_S).values()
    try:
        future.result(2 * ANSWER_S)
    except KafkaException as error:
        raise LogUnavailable(
            f"Kafka did not delete the records of {cut.topic.name}/{cut.partition} before {cut.offset}: "
            f"{error.args[0].str()}"
        ) from error


def remarks(context: RetentionContext, planned: Sequence[tuple[Part, Cut | None]]) -> Iterator[str]:
    """What can't be done any more where the log is cut, or has been before."""
    cuts = [cut for part, cut in planned if cut is not None and part.frees]
    for topic in context.topics.values():
        name = topic.topic.name
        begins = {at: first for (each, at), (first, _) in context.watermarks.items() if each == name and first}
        begins |= {cut.partition: cut.offset for cut in cuts if cut.topic == topic}
        if begins:
            yield from _lost(context, topic, ", ".join(f"{name}/{at}@{first}" for at, first in sorted(begins.items())))


def _lost(context: RetentionContext, topic: TopicOnBroker, begin: str) -> Iterator[str]:
    lost = [each.name for each in folding(topic.topic, context.projections) if why_not_from_states(each) is not None]
    if lost:
        yield (
            f"{', '.join(lost)} can't be rebuilt, verified or shown as of a time any more: the log begins at {begin}, and "
            "nothing else holds what came before"
        )
    if topic.topic.kind is TopicKind.CONDITIONAL:
        yield (
            f"the journal, heads and verdicts of {topic.topic.name} can't be made again from the log, which begins at {begin}: "
            "back the database up, it is the only copy now"
        )
