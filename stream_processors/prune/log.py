"""Kafka's records: deleted from the beginning of each partition, up to what somebody still needs."""

from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import US_PER_DAY, TopicKind, TopicOnBroker
from spanfold.projections.projection import folding, why_not_from_states
from spanfold.projections.retention.rules import log_retentions
from spanfold.stream_processors.prune.parts import Bound, Part, least, words_of
from spanfold.stream_processors.prune.retention_context import Site

ANSWER_S: Final = 30.0


def plan(site: Site) -> list[tuple[Part, int]]:
    """A part for each partition of the topics that have a retention, with the offset before which all may go."""
    retentions = log_retentions(site.settings.log_retention_days, [each.topic for each in site.topics.values()])
    return [found for topic in site.topics.values() for found in _plan(site, topic, retentions.get(topic.topic.name))]


def _plan(site: Site, topic: TopicOnBroker, days: int | None) -> Iterator[tuple[Part, int]]:
    name = topic.topic.name
    now = site.now
    if days is None or now is None:
        why = "no retention set" if days is None else "nothing has been judged yet"
        yield Part("log", name, None, 0, None, why), 0
        return
    for partition in range(topic.partitions):
        first = site.watermarks[name, partition][0]
        bound = least(_bounds(site, topic, partition, days, now))
        cut = max(first, bound.at)
        yield Part("log", name, partition, cut - first, f"offset {cut}", bound.words), cut


def _bounds(site: Site, topic: TopicOnBroker, partition: int, days: int, now: int) -> Iterator[Bound]:
    name, since = topic.topic.name, now - days * US_PER_DAY
    by_time = site.offset_at(name, partition, since)
    yield Bound(by_time, f"{days} days before the last record, {words_of(since)}, begin at {by_time}")
    for holder in site.holders:
        if (holder.topic, holder.partition) == (name, partition):
            yield Bound(holder.next_offset, str(holder))
    for projection, who in site.busy.items():
        # it may be at an as-of, which is no holder, or about to load from the log's start
        if topic.topic in site.projections[projection].topics:
            yield Bound(0, who)


def delete(settings: Settings, topic: TopicOnBroker, partition: int, cut: int) -> None:
    """Delete the partition's records before this offset. LogUnavailable when Kafka does not say that it did."""
    admin = AdminClient(kafka_config(settings))
    where = TopicPartition(topic.name, partition, cut)
    (future,) = admin.delete_records([where], request_timeout=ANSWER_S, operation_timeout=ANSWER_S).values()
    try:
        future.result(2 * ANSWER_S)
    except KafkaException as error:
        raise LogUnavailable(
            f"Kafka did not delete the records of {topic.name}[{partition}] before {cut}: {error.args[0].str()}"
        ) from error


def remarks(site: Site, planned: Sequence[tuple[Part, int]]) -> Iterator[str]:
    """What can't be done any more where the log is cut, or has been before."""
    for topic in site.topics.values():
        name = topic.topic.name
        cut = {at: first for (each, at), (first, _) in site.watermarks.items() if each == name and first}
        cut |= {part.partition or 0: at for part, at in planned if part.name == name and part.frees}
        if not cut:
            continue
        where = ", ".join(f"[{partition}] {first}" for partition, first in sorted(cut.items()))
        lost = [each.name for each in folding(topic.topic, site.projections) if why_not_from_states(each) is not None]
        if lost:
            yield (
                f"{', '.join(lost)} can't be rebuilt, verified or shown as of a time any more: the log of {name} begins at "
                f"{where}, and nothing else holds what came before"
            )
        if topic.topic.kind is TopicKind.CONDITIONAL:
            yield (
                f"the journal, heads and verdicts of {name} can't be made again from the log, which begins at {where}: they "
                "are the truth now, back the database up"
            )
