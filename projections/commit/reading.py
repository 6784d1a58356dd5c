"""From accepted records to facts that Postgres can hold, or to the reason why not. Pure, and the only place that parks."""

from collections.abc import Callable, Container, Sequence
from itertools import repeat
from operator import itemgetter, lt
from typing import Any, Final, NamedTuple

import orjson

from spanfold.language.documents import Shape, canonical_bytes, finite, has_nul
from spanfold.language.errors import PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import BATCH, NOT_FOLDED, TRACE_ERASED, Topic, TopicKind, topic_of
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.checks import CHECKS
from spanfold.projections.commit.cut import Value, any_cut, whole
from spanfold.projections.commit.verdicts import NIL_ID, Judged
from spanfold.projections.facts import Fact
from spanfold.schemas.batches import unpack
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec, Fields, is_document

JSONB_VERSION: Final = b"\x01"
"""First byte of a jsonb value in Postgres' binary protocol (src/backend/utils/adt/jsonb.c, jsonb_recv)."""

_SPAN: Final = "SpanRecorded"
"""The event whose end may not lie before its start. Those of a trace come from two events, set by two clocks."""

MIN_TIME_US: Final = -210_866_803_200_000_000
"""4714-11-24 BC, the first instant of a Postgres timestamp; a 64-bit count of µs ends before the last one does."""


def read(judged: Judged, codec: Codec, parked: dict[int, PoisonRecord]) -> list[Fact]:
    """The facts of every record that is not rejected, grouped by type; the unreadable are added to `parked`, keyed by
    batch index.
    """
    return _facts(judged, _decode(judged.batch.values, judged.rejections, codec, parked), codec, parked)


def read_again(batch: Batch, codec: Codec, parked: dict[int, PoisonRecord]) -> tuple[Judged, list[Fact]]:
    """The same of records whose verdicts are known and looked up elsewhere: every value is taken for an accepted one, headers
    are not looked at.
    """
    decoded = _decode(batch.values, {}, codec, parked)
    said = [fields or _NOTHING for _, fields in decoded]
    judged = Judged(
        batch,
        aggregate_ids=[fields["aggregate_id"] for fields in said],
        event_ids=[fields["event_id"] for fields in said],
        event_types=[event_type for event_type, _ in decoded],
        occurred_at=[fields["occurred_at"] for fields in said],
        rejections={},
    )
    return judged, _facts(judged, decoded, codec, parked)


def _facts(judged: Judged, decoded: "Decoded", codec: Codec, parked: dict[int, PoisonRecord]) -> list[Fact]:
    batch = judged.batch
    facts: list[Fact] = []
    for event_type, indexes in _by_type(judged, decoded, parked).items():
        if event_type == BATCH and batch.topic.kind is TopicKind.CONDITIONAL:
            facts += _batched(judged, indexes, decoded, codec, parked)
            continue
        if (stray := _stray(event_type, batch.topic)) is not None:
            parked |= dict.fromkeys(indexes, stray)
            continue
        good = _storable_ones(judged, event_type, indexes, decoded, parked)
        fields = [decoded[index][1] for index in good]
        facts += zip(_at(batch.offsets, good), repeat(event_type), fields)
    return facts


def _stray(event_type: str, topic: Topic) -> PoisonRecord | None:
    """Why events of this type can't lie in this topic, if they can't."""
    elsewhere = event_type not in topic.event_types and topic_of(event_type)
    if event_type == BATCH or elsewhere or (event_type == TRACE_ERASED and not topic.erasable):
        return PoisonRecord(ParkedReason.INVALID, f"{event_type} does not belong to {topic.name}")
    return None


def _batched(
    judged: Judged, indexes: Sequence[int], decoded: "Decoded", codec: Codec, parked: dict[int, PoisonRecord]
) -> list[Fact]:
    """The events of these records, each an EventBatch: all of a record's events, or none and it is parked."""
    facts: list[Fact] = []
    for index in indexes:
        offset, fields = judged.batch.offsets[index], decoded[index][1]
        try:
            if not _all_agree(judged, [index], [fields]):
                raise _contradiction(judged, index, BATCH, fields)
            events = unpack(fields, codec)
            for event_type, each in events:
                if event_type in NOT_FOLDED:
                    raise PoisonRecord(
                        ParkedReason.INVALID, f"{event_type} within a batch: it counts only as a record of its own"
                    )
                if (stray := _stray(event_type, judged.batch.topic)) is not None:
                    raise stray
                storable(event_type, each)
        except PoisonRecord as poison:
            parked[index] = poison
        else:
            facts += [(offset, *event) for event in events]
    return facts


Decoded = list[tuple[str, Fields]]
"""By batch index: event type and fields; the type is empty where there is nothing to read."""


_NOTHING: Final[Fields] = {"aggregate_id": "", "event_id": NIL_ID, "occurred_at": 0}


def _decode(
    values: Sequence[Value], rejections: Container[int], codec: Codec, parked: dict[int, PoisonRecord]
) -> Decoded:
    if not rejections and not any_cut(values):
        try:
            return list(map(codec.decode, values))  # type: ignore[arg-type]  # none is cut
        except PoisonRecord:
            pass  # then each on its own
    decoded: Decoded = [("", {})] * len(values)
    for index, value in enumerate(values):
        if index not in rejections:
            try:
                decoded[index] = codec.decode(whole(value))
            except PoisonRecord as poison:
                parked[index] = poison
    return decoded


def _by_type(judged: Judged, decoded: Decoded, parked: dict[int, PoisonRecord]) -> dict[str, list[int]]:
    """The indexes of each event type; whose header says another type is parked."""
    types = [event_type for event_type, _ in decoded]
    if types != judged.event_types:
        for index, (said, found) in enumerate(zip(judged.event_types, types, strict=True)):
            if found and said != found:
                parked[index] = _contradiction(judged, index, *decoded[index])
                types[index] = ""
    return {each: [i for i, of in enumerate(types) if of == each] for each in sorted(set(types)) if each}


def _storable_ones(
    judged: Judged, event_type: str, indexes: list[int], decoded: Decoded, parked: dict[int, PoisonRecord]
) -> list[int]:
    """Those of one type that agree with their headers and that Postgres can hold, tags and lists turned into jsonb."""
    group = [decoded[index][1] for index in indexes]
    if _all_agree(judged, indexes, group) and not _what_fails(event_type, group) and _all_storable(event_type, group):
        return indexes
    good = []
    for index, fields in zip(indexes, group, strict=True):
        try:
            if not _all_agree(judged, [index], [fields]):
                raise _contradiction(judged, index, event_type, fields)
            storable(event_type, fields)
        except PoisonRecord as poison:
            parked[index] = poison
        else:
            good.append(index)
    return good


def _at(column: Sequence[Any], indexes: Sequence[int]) -> Sequence[Any]:
    return column if len(indexes) == len(column) else [column[index] for index in indexes]


def _all_agree(judged: Judged, indexes: Sequence[int], group: Sequence[Fields]) -> bool:
    return (
        list(map(itemgetter("event_id"), group)) == _at(judged.event_ids, indexes)
        and list(map(itemgetter("occurred_at"), group)) == _at(judged.occurred_at, indexes)
        and list(map(itemgetter("aggregate_id"), group)) == _at(judged.aggregate_ids, indexes)
    )


def _what_fails(event_type: str, group: Sequence[Fields]) -> str | None:
    """What the check of this type says of the first event that fails it; None if all pass, or there is no check."""
    check = CHECKS.get(event_type)
    return next(filter(None, map(check, group)), None) if check else None


def _all_storable(event_type: str, group: Sequence[Fields]) -> bool:
    """Turn the documents and lists of all into jsonb, or none: False if any event might not be storable as it is."""
    rules = _RULES.get(event_type) or _add_rules(event_type)
    for name in rules.texts:
        # filter: an optional text may be None
        if "\0" in "".join(filter(None, map(itemgetter(name), group))):
            return False
    for name in rules.times:
        if min(filter(None, map(itemgetter(name), group)), default=0) < MIN_TIME_US:
            return False
    if event_type == _SPAN and any(map(lt, map(itemgetter("end_time"), group), map(itemgetter("start_time"), group))):
        return False
    try:
        columns = {name: _documents(list(map(itemgetter(name), group)), shape) for name, shape in rules.documents}
        columns |= {name: _lists(list(map(itemgetter(name), group))) for name in rules.lists}
    except ValueError:
        return False
    for name, column in columns.items():
        for fields, document in zip(group, column, strict=True):
            fields[name] = document
    return True


def _documents(texts: Sequence[str], shape: Shape) -> list[bytes]:
    """As Postgres' jsonb takes them. ValueError if one is bad."""
    stored = {text: JSONB_VERSION + canonical_bytes(text, shape) for text in set(texts)}
    return [stored[text] for text in texts]


def _lists(values: Sequence[Any]) -> list[bytes]:
    """As Postgres' jsonb takes them. ValueError if one might need care."""
    dumped = list(map(orjson.dumps, values))
    joined = b"".join(dumped)
    if b"null" in joined or b"\\u0000" in joined:
        raise ValueError("a number that JSON lacks, or a NUL character")
    return [JSONB_VERSION + document for document in dumped]


def _contradiction(judged: Judged, index: int, event_type: str, fields: Fields) -> PoisonRecord:
    said = {
        "event_id": judged.event_ids[index],
        "occurred_at": judged.occurred_at[index],
        "aggregate_id": judged.aggregate_ids[index],
        "event_type": judged.event_types[index],
    }
    written = {**fields, "event_type": event_type}
    differing = [
        f"{name} is {written[name]!r}, not {value!r}" for name, value in said.items() if written[name] != value
    ]
    return PoisonRecord(ParkedReason.CONTRADICTION, "the payload contradicts key or headers: " + "; ".join(differing))


def storable(event_type: str, fields: Fields) -> None:
    """Turn tags and lists into jsonb, in place. PoisonRecord says what Postgres could not hold."""
    texts, lists, documents, times = _RULES.get(event_type) or _add_rules(event_type)
    wrong = _what_fails(event_type, [fields])
    if wrong:
        raise PoisonRecord(ParkedReason.INVALID, wrong)
    if "\0" in "".join([fields[name] or "" for name in texts]):
        raise PoisonRecord(
            ParkedReason.INVALID, f"a NUL character in {_first_with_nul(fields, texts)}: Postgres text cannot hold it"
        )
    stored = {name: _document(name, fields[name], shape) for name, shape in documents}
    for name in lists:
        stored[name] = to_jsonb(name, fields[name])
    for name in times:
        if (fields[name] or 0) < MIN_TIME_US:
            raise PoisonRecord(ParkedReason.INVALID, f"{name} lies before 4714 BC, where Postgres' time begins")
    if event_type == _SPAN and fields["end_time"] < fields["start_time"]:
        raise PoisonRecord(ParkedReason.INVALID, "end_time lies before start_time")
    fields.update(stored)


def _document(name: str, text: str, shape: Shape) -> bytes:
    try:
        return JSONB_VERSION + canonical_bytes(text, shape)
    except ValueError as error:
        raise PoisonRecord(ParkedReason.INVALID, f"{name}: {error}") from error


def to_jsonb(name: str, value: Any) -> bytes:
    """The value as Postgres' jsonb takes it. Numbers that JSON lacks become the texts NaN, Infinity and -Infinity."""
    dumped = orjson.dumps(value)
    if b"null" in dumped:
        dumped = orjson.dumps(finite(value))
    if b"\\u0000" in dumped and has_nul(value):
        raise PoisonRecord(ParkedReason.INVALID, f"a NUL character in {name}: Postgres jsonb cannot hold it")
    return JSONB_VERSION + dumped


def _first_with_nul(fields: Fields, texts: Sequence[str]) -> str:
    return next(name for name in texts if "\0" in (fields[name] or ""))


def _is_time(kind: Any) -> bool:
    return isinstance(kind, dict) and kind.get("logicalType") == "timestamp-micros"


class Rules(NamedTuple):
    """Fields of an event, read off its schema: texts, maps and lists of records, documents with their shape, times."""

    texts: tuple[str, ...]
    lists: tuple[str, ...]
    documents: tuple[tuple[str, Shape], ...]
    times: tuple[str, ...]


_RULES: Final[dict[str, Rules]] = {}


def _add_rules(event_type: str) -> Rules:
    schema = committed().latest(event_type).load()

    def names(belongs: Callable[[Any], bool]) -> tuple[str, ...]:
        return tuple(field["name"] for field in schema["fields"] if belongs(field["type"]))

    _RULES[event_type] = Rules(
        names(lambda kind: kind == "string" or (isinstance(kind, list) and "string" in kind)),
        names(lambda kind: isinstance(kind, dict) and (kind["type"] == "map" or isinstance(kind.get("items"), dict))),
        tuple((field["name"], field["type"]["json"]) for field in schema["fields"] if is_document(field["type"])),
        names(lambda kind: any(map(_is_time, kind)) if isinstance(kind, list) else _is_time(kind)),
    )
    return _RULES[event_type]
