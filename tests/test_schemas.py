"""The contract with everyone who reads or writes the log: what was released stays as it was and can be read for ever."""

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib.resources import files
from io import BytesIO
from itertools import permutations
from pprint import pformat
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.io import BinaryDecoder, DatumReader
from avro.schema import Schema
from avro.schema import parse as avro_parse
from hypothesis import given, settings

from spanfold.application.aggregates import snapshot_types
from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.events import EVENT_TYPES, DomainEvent, LogRecorded, SpanRecorded, TraceCompleted, TraceEvent
from spanfold.language.topics import BATCH, NOT_FOLDED, SNAPSHOTS_TOPIC, installed_topics, topic_of
from spanfold.schemas.catalogue import FIRST_ID, RegisteredSchema, committed, fingerprint_of
from spanfold.schemas.codec import Codec, is_document, plain
from spanfold.schemas.decoding import event_of
from tests.support.strategies import events

# the package avro knows uuid as a string only; what it ignores it reads as the 16 bytes that they are
pytestmark = pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")

RELEASED = {
    1_400_000_000: ("SpanRecorded", 1, "2898b50001870c150d6436c43f715c3cc6a0d31e0bfb10c5c589ab7832631e0d"),
    1_400_000_001: ("TraceCompleted", 1, "d46046ca1b456ca0ae1b36c515e2ae692c87c9a0389acbd16974c5a8aef8c4e2"),
    1_400_000_002: ("TraceCreated", 1, "0445225c6aae2fc86136b0e73213c3701bd6ca198fe4b3707ab36fdb182ee42a"),
    1_400_000_003: ("TraceFailed", 1, "42fb767cadcd9ab6ed98e2088d0eaeab81a50763c2b4f7c8edb7d9b93a6d1e52"),
    1_400_000_004: ("LogRecorded", 1, "c0fda96e7e8e9902ac19d9671ed5ab2e17ec9c48738afd52093f0a7ba6ad70a6"),
    1_400_000_005: ("MetricUpdated", 1, "4d536f2d91bb943a240ed790e20da946ab070ea3c7cac3f1be8b1ec6233b3c00"),
    1_400_000_006: ("RecordDiscarded", 1, "226838f768a4202757be42f8132f5d7732568dcd3fe68dfd54f2b5531d234ba6"),
    1_400_000_007: ("RecordRetried", 1, "374d8b9b582d66ce323c504b2e1b36ed1c89d7e095d56335695155cf5847b2f6"),
    1_400_000_008: ("EventBatch", 1, "98c18a6aedd03a68aa15823da68dabe80759bf32735c9dc1c35ca3d99702814a"),
    1_400_000_009: ("ServiceDeregistered", 1, "9d0bebeba3a27889ca374f5a259c5c841e00046e855307d96d766584fbf42806"),
    1_400_000_010: ("ServiceHealthChanged", 1, "b5f4cf2cac3ef9d921dced538be9fb1fe2949597e1ab78a3379af603d8f8d504"),
    1_400_000_011: ("ServiceRegistered", 1, "6323311a6f72d0a3df4320cdd773030d073d8a6872043bd59584ca44c5eb81b6"),
    1_400_000_012: ("MetricSeriesSnapshot", 1, "79c3421b59250c7c9754f9ed1b33a3f41b1a53d9490d6c40f06fafa1489990ad"),
    1_400_000_013: ("PlainSnapshot", 1, "a8b762c4d9eeb004294e32d40559b22c3675cdfae24b7a3d66d5bcb3bf68e446"),
    1_400_000_014: ("ServiceInstanceSnapshot", 1, "729c4d9b35ac0429a62c3add90b78972d4081ff83d07d468915759e4a60e951d"),
    1_400_000_015: ("TraceSnapshot", 1, "40b6d28fe3007207195e295a4d0d498356b3631872fe90b9c290e003c273595a"),
    1_400_000_016: ("TraceErased", 1, "ed63e91a9ded5cbcdecedb3ee0ad519dcb0cba540dc2d6a193f5888001c15bfb"),
}
"""What has been released, for ever. A new version is a new line."""

ENTRIES = list(committed())


def released_versions() -> dict[str, list[RegisteredSchema]]:
    found = defaultdict(list)
    for entry in ENTRIES:
        found[entry.event_type].append(entry)
    return found


# The catalogue


def test_every_released_schema_has_the_id_and_the_fingerprint_that_it_always_had() -> None:
    catalogued = {entry.id: (entry.event_type, entry.version, entry.fingerprint) for entry in ENTRIES}
    assert catalogued == RELEASED
    assert min(RELEASED) == FIRST_ID


def test_the_catalogue_and_the_files_are_in_step() -> None:
    there = {file.name for file in files("spanfold.schemas").joinpath("avro").iterdir() if file.name.endswith(".avsc")}
    assert there == {entry.file for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.file)
def test_each_entry_describes_its_file(entry: RegisteredSchema) -> None:
    schema = entry.load()
    assert fingerprint_of(schema) == entry.fingerprint
    assert entry.file == f"{schema['name']}.v{entry.version}.avsc"
    topic = topic_of(entry.event_type)
    full_name = f"{schema['namespace']}.{schema['name']}"
    home = SNAPSHOTS_TOPIC if entry.event_type in snapshot_types() else topic and topic.name
    assert entry.subject == (f"{home}-{full_name}" if home else full_name)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.file)
def test_each_field_says_what_it_is_and_times_and_ids_say_it_in_avro(entry: RegisteredSchema) -> None:
    for each in entry.load()["fields"]:
        assert each.get("doc"), each["name"]
        if each["name"].endswith(("_at", "_time")):
            kinds = each["type"] if isinstance(each["type"], list) else [each["type"]]
            assert kinds[-1] == {"type": "long", "logicalType": "timestamp-micros"}
        if each["name"] == "event_id":
            assert (each["type"]["type"], each["type"]["size"], each["type"]["logicalType"]) == ("fixed", 16, "uuid")


def test_versions_are_counted_from_one_and_the_latest_is_written() -> None:
    for event_type, versions in released_versions().items():
        assert [entry.version for entry in sorted(versions, key=lambda entry: entry.version)] == list(
            range(1, len(versions) + 1)
        )
        assert committed().latest(event_type).version == len(versions)


# Compatibility


def _parsed(entry: RegisteredSchema) -> Schema:
    return avro_parse(json.dumps(entry.load()))


def _reads(reader: Schema, writer: Schema) -> bool:
    verdict = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
    return verdict.compatibility is SchemaCompatibilityType.compatible


def _pairs() -> Iterator[tuple[RegisteredSchema, RegisteredSchema]]:
    for versions in released_versions().values():
        yield from permutations(versions, 2)
        yield from ((entry, entry) for entry in versions)


@pytest.mark.parametrize(("reader", "writer"), list(_pairs()), ids=lambda entry: entry.file)
def test_every_released_version_reads_every_other(reader: RegisteredSchema, writer: RegisteredSchema) -> None:
    assert _reads(_parsed(reader), _parsed(writer))


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_the_check_of_compatibility_tells_good_changes_from_bad_ones(event_type: str) -> None:
    released = committed().latest(event_type).load()
    was = avro_parse(json.dumps(released))

    def changed(*added: dict[str, Any], without: str = "") -> Schema:
        kept = [each for each in released["fields"] if each["name"] != without]
        return avro_parse(json.dumps({**released, "fields": [*kept, *added]}))

    optional = changed({"name": "added", "type": ["null", "string"], "default": None})
    assert _reads(optional, was)
    assert _reads(was, optional)
    assert not _reads(changed({"name": "added", "type": "string"}), was)
    assert not _reads(was, changed(without="source"))
    for each in released["fields"]:
        if "default" in each:
            assert _reads(was, changed(without=each["name"]))


# The events


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_an_event_has_exactly_the_fields_of_its_schema(event_type: str) -> None:
    schema = committed().latest(event_type).load()
    assert {each.name for each in fields(EVENT_TYPES[event_type])} == {each["name"] for each in schema["fields"]}


def test_every_event_type_is_on_one_topic_or_on_all_and_has_a_schema() -> None:
    on_topics = [event_type for topic in installed_topics() for event_type in topic.event_types]
    events = released_versions().keys() - snapshot_types()
    assert sorted([*on_topics, *NOT_FOLDED, BATCH]) == sorted(EVENT_TYPES) == sorted(events)


CODEC = Codec()


def encoded(event: DomainEvent) -> bytes:
    return CODEC.encode(event.event_type, event.as_fields())


@settings(max_examples=300, deadline=None)
@given(events)
def test_what_is_encoded_is_decoded_as_it_was(event: TraceEvent) -> None:
    again = event_of(CODEC, *CODEC.decode(encoded(event)))
    assert type(again) is type(event)
    # numbers that JSON lacks come back as text, which is written as they are
    assert encoded(again) == encoded(event)
    assert {**again.as_fields(), **documents_of(event)} == event.as_fields()


def documents_of(event: TraceEvent) -> dict[str, Any]:
    """Those fields of an event that are documents."""
    schema = committed().latest(event.event_type).load()
    return {each["name"]: getattr(event, each["name"]) for each in schema["fields"] if is_document(each["type"])}


@settings(max_examples=100, deadline=None)
@given(events)
def test_another_implementation_of_avro_reads_the_wire_bytes_in_confluents_frame(event: TraceEvent) -> None:
    value = encoded(event)
    magic, schema_id = struct.unpack(">bI", value[:5])
    assert magic == 0
    entry = committed().by_id(schema_id)
    assert entry
    # its clock ends in the year 9999, so it reads the times as the longs that they are
    body = BytesIO(value[5:])
    read = DatumReader(avro_parse(json.dumps(plain(entry.load())))).read(BinaryDecoder(body))
    assert body.read() == b""
    assert pformat(read) == pformat(CODEC.decode(value)[1])


def test_another_implementation_of_avro_reads_times_as_times() -> None:
    at = datetime(2026, 11, 18, 7, 6, 40, 1, tzinfo=UTC)
    event = completed(int(at.timestamp()) * 1_000_000 + 1)
    body = BytesIO(encoded(event)[5:])
    read = DatumReader(_parsed(committed().latest("TraceCompleted"))).read(BinaryDecoder(body))
    assert isinstance(read, dict)
    assert read["occurred_at"] == read["end_time"] == at


def completed(at: int, **changes: Any) -> TraceCompleted:
    fields: dict[str, Any] = {"aggregate_id": "a", "occurred_at": at, "source": "test", "end_time": at}
    return TraceCompleted(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"source": None}, "source"),
        ({"status": 7}, "status"),
        ({"end_time": 1 << 63}, "end_time"),
        ({"end_time": "now"}, "end_time"),
        ({"tags": {"a": object()}}, "tags.a: a value of type object is none of JSON's"),
        ({"tags": {1: "a"}}, "tags: expected keys that are text, got 1"),
        ({"tags": ["a"]}, "tags: expected an object"),
        ({"tags": {"a": "\0"}}, "tags: a NUL character"),
        ({"event_id": b"short"}, "event_id"),
    ],
)
def test_what_the_schema_refuses_is_refused_by_the_name_of_the_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=f"TraceCompleted.*{named}"):
        encoded(completed(1, **changes))


@pytest.mark.parametrize(
    ("tags", "where"),
    [
        ({"n": 2**64}, r"tags\.n is 18446744073709551616"),
        ({"n": -(2**63) - 1}, r"tags\.n is -9223372036854775809"),
        ({"a": 1, "list": ["x", 1.5, {"b": 2**70}]}, r"tags\.list\[2\]\.b is 1180591620717411303424"),
    ],
)
def test_an_integer_beyond_64_bits_is_refused_and_never_rounded(tags: dict[str, Any], where: str) -> None:
    codec = Codec()
    fields = TraceCompleted(aggregate_id="t", occurred_at=0, source="s", end_time=0, tags=tags).as_fields()
    with pytest.raises(InvalidInput, match=f"^TraceCompleted: {where}, which is beyond 64 bits: publish it as text$"):
        codec.encode("TraceCompleted", fields)
    largest = codec.decode(codec.encode("TraceCompleted", fields | {"tags": {"n": 2**63 - 1, "list": [-(2**63)]}}))[1]
    assert largest["tags"] == '{"list":[-9223372036854775808],"n":9223372036854775807}'


@pytest.mark.parametrize(
    ("event", "changes", "why"),
    [
        (SpanRecorded, {"events": [{"name": "a", "time": 1}]}, r"^SpanRecorded: events: \[0\]: expected an object of name, time"),
        (SpanRecorded, {"links": [{"trace_id": "a", "span_id": 1, "attributes": {}}]}, r"links: \[0\].span_id: expected text"),
        (SpanRecorded, {"resource": None}, "resource: expected an object, got null"),
        (SpanRecorded, {"scope_attributes": {"a": {1: 2}}}, "scope_attributes.a: expected keys that are text"),
        (LogRecorded, {"body": ["\0"]}, "^LogRecorded: body: a NUL character"),
    ],
)  # fmt: skip
def test_a_document_that_can_t_be_one_is_refused_by_its_place(
    event: type[Any], changes: dict[str, Any], why: str
) -> None:
    known = {"aggregate_id": "a", "occurred_at": 1, "source": "", "service_name": "s"}
    own = {"span_id": "1", "parent_span_id": None, "operation_name": "", "start_time": 1, "end_time": 1}
    fields = event(**(known | own if event is SpanRecorded else known)).as_fields()
    CODEC.encode(event.__name__, fields)
    with pytest.raises(InvalidInput, match=why):
        CODEC.encode(event.__name__, fields | changes)


def test_a_document_that_somebody_else_wrote_is_read_as_its_text_and_poison_as_a_value() -> None:
    raw = encoded(completed(1, tags={"aa": 1})).replace(b'{"aa":1}', b'{"aa":1 ')
    event_type, values = CODEC.decode(raw)
    assert values["tags"] == '{"aa":1 '
    with pytest.raises(PoisonRecord, match="invalid: not JSON"):
        event_of(CODEC, event_type, values)


def test_a_type_that_nobody_knows_cannot_be_encoded() -> None:
    with pytest.raises(InvalidInput, match="SomethingOfTomorrow"):
        CODEC.encode("SomethingOfTomorrow", {})


class Upgraded:
    """Schema ids of a version that has a second TraceCompleted."""

    second = replace(committed().latest("TraceCompleted"), id=1_499_999_999, version=2)

    def by_id(self, schema_id: int) -> Any:
        return Extended(self.second) if schema_id == self.second.id else committed().by_id(schema_id)

    def latest(self, event_type: str) -> Any:
        return Extended(self.second) if event_type == "TraceCompleted" else committed().latest(event_type)


class Extended:
    """A released schema with one field more, which has a default."""

    def __init__(self, entry: RegisteredSchema) -> None:
        self.id, self.event_type = entry.id, entry.event_type
        self.load = lambda: {**entry.load(), "fields": [*entry.load()["fields"], ADDED]}


ADDED = {"name": "added", "type": ["null", "string"], "default": None}


def test_a_record_of_an_older_version_is_read_with_the_defaults_of_the_latest() -> None:
    event = completed(1)
    assert Codec(Upgraded()).decode(encoded(event)) == (
        "TraceCompleted",
        {**event.as_fields(), "tags": "{}", "added": None},
    )


def test_a_record_of_a_newer_version_waits_for_the_upgrade() -> None:
    newer = Codec(Upgraded()).encode("TraceCompleted", {**completed(1).as_fields(), "added": "x"})
    assert Codec(Upgraded()).decode(newer)[1]["added"] == "x"
    with pytest.raises(PoisonRecord, match="upgrade, then retry"):
        CODEC.decode(newer)
