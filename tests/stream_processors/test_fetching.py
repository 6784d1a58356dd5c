"""Record batches in bounded memory: what comes of a batch is the same however it is read, and what is too large is cut."""

import hashlib
import resource
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from spanfold.projections.commit.cut import CutHeaders, CutKey, CutValue, within_limits
from spanfold.stream_processors.fetching import record_batches
from spanfold.stream_processors.fetching.batch_header import HEADER_BYTES, BatchHeader
from spanfold.stream_processors.fetching.record_batches import FetchedRecords, Paused
from spanfold.stream_processors.fetching.streamed_batch import StreamedRecord, streamed
from tests.support.raw_batches import CODECS, RawRecord, Repeated, record_batch

GIB = 1 << 30
MIB = 1 << 20

COMPRESSED = [name for name in CODECS if name != "none"]


def records_of(data: bytes) -> list[Any]:
    """All records of these batches, in as many goes as it takes."""
    fetched = FetchedRecords(data)
    records: list[Any] = []
    while fetched.has_next():
        try:
            records += fetched.next_batch()
        except Paused:
            fetched.come_again()
    return records


def streamed_records(data: bytes, max_value_bytes: int = 4 * MIB) -> list[StreamedRecord]:
    view = memoryview(data)
    stream = streamed(BatchHeader.of(view), view[HEADER_BYTES:], max_value_bytes)
    return [record for record in stream if record is not None]


def as_tuple(record: Any) -> tuple[Any, ...]:
    return (record.offset, record.timestamp, record.key, record.value, [tuple(header) for header in record.headers])


texts = st.text(max_size=20).map(str.encode)
raw_records = st.builds(
    RawRecord,
    key=st.none() | st.binary(max_size=100),
    value=st.none() | st.binary(max_size=300) | st.builds(Repeated, st.just(b"v"), st.integers(0, 3_000)),
    headers=st.lists(st.tuples(texts, st.none() | st.binary(max_size=40)), max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(raw_records, min_size=1, max_size=30), st.sampled_from([*CODECS]))
def test_a_batch_that_is_streamed_has_the_records_that_aiokafka_reads(records: list[RawRecord], codec: str) -> None:
    data = record_batch(records, codec)
    theirs = [as_tuple(record) for record in MemoryRecords(data).next_batch()]
    assert [as_tuple(record) for record in streamed_records(data)] == theirs
    assert [as_tuple(record) for record in records_of(data)] == theirs


GOOD = RawRecord(b"key", b"value", [(b"name", b"content")])


def neighbours(codec: str, *between: RawRecord) -> list[Any]:
    records = records_of(record_batch([GOOD, *between, GOOD], codec))
    assert [record.offset for record in records] == list(range(len(between) + 2))
    for record in (records[0], records[-1]):
        assert as_tuple(record)[2:] == (b"key", b"value", [("name", b"content")])
    return records[1:-1]


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_value_that_is_too_large_is_cut_and_its_neighbours_are_whole(codec: str) -> None:
    (record,) = neighbours(codec, RawRecord(b"key", Repeated(b"v", 20 * MIB), GOOD.headers))
    assert record.value == CutValue.of(b"v" * 20 * MIB)
    assert record.headers == [("name", b"content")]


@pytest.mark.parametrize("codec", COMPRESSED)
def test_headers_and_keys_beyond_the_limits_are_cut_as_the_verdict_cuts_them(codec: str) -> None:
    large: Sequence[Any] = [(b"a", b"1"), (b"b", Repeated(b"v", 8 * MIB)), (b"c", None)]
    many = [(b"name %d" % number, b"x" * 20_000) for number in range(300)]
    first, second, third = neighbours(
        codec,
        RawRecord(b"key", b"value", large),
        RawRecord(b"key", b"value", many),
        RawRecord(Repeated(b"k", 8 * MIB), b"value", GOOD.headers),
    )
    assert isinstance(first.headers, CutHeaders)
    assert vars(first.headers) == vars(within_limits([("a", b"1"), ("b", b"v" * 8 * MIB), ("c", None)]))
    assert isinstance(second.headers, CutHeaders)
    assert second.headers.number == 300
    assert vars(second.headers) == vars(within_limits([(name.decode(), value) for name, value in many]))
    assert isinstance(third.key, CutKey)
    assert (third.key, third.key.size) == (b"k" * 1024, 8 * MIB)
    assert third.key.sha256 == hashlib.sha256(b"k" * 8 * MIB).digest()


def test_a_batch_of_many_records_or_headers_is_streamed() -> None:
    tiny = [RawRecord(None, None)] * (record_batches.FEW_RECORDS + 1)
    assert len(records_of(record_batch(tiny))) == len(tiny)
    headers: Sequence[Any] = [(b"", None)] * (record_batches.FEW_HEADERS + 100)
    (record,) = neighbours("zstd", RawRecord(b"key", b"value", headers))
    assert isinstance(record.headers, CutHeaders)
    assert record.headers.number == len(headers)


def test_gigabytes_take_no_memory() -> None:
    """Peak memory of the process is measured: it must not grow by what the batch holds."""
    records = [
        GOOD,
        RawRecord(b"key", Repeated(b"v", GIB)),
        RawRecord(b"k", b"v", [(b"x", Repeated(b"h", 270 * MIB))]),
        GOOD,
    ]
    data = record_batch(records)
    assert len(data) < 200_000
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first, large, malformed, last = records_of(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
    assert as_tuple(first)[2:] == as_tuple(last)[2:]
    assert large.value.size == GIB
    assert malformed.headers.size > 270 * MIB


def test_the_parser_pauses_within_a_large_value() -> None:
    view = memoryview(record_batch([RawRecord(b"key", Repeated(b"v", 300 * MIB))]))
    pieces = list(streamed(BatchHeader.of(view), view[HEADER_BYTES:], MIB))
    assert pieces.count(None) == 4
    assert isinstance(pieces[-1], StreamedRecord) or isinstance(pieces[-2], StreamedRecord)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_bytes_that_are_no_records_are_corrupt(codec: str) -> None:
    whole = record_batch([GOOD, RawRecord(b"key", Repeated(b"v", 8 * MIB)), GOOD], codec)
    for data in (whole[:-20], whole[: HEADER_BYTES + 30] + b"\xff" * 50 + whole[HEADER_BYTES + 80 :]):
        with pytest.raises(CorruptRecordException):
            streamed_records(data)
    more = bytearray(whole)
    more[HEADER_BYTES - 1] = 2
    with pytest.raises(CorruptRecordException, match="bytes after the last record"):
        streamed_records(bytes(more))
    with pytest.raises(CorruptRecordException):
        streamed_records(bytes(more[: HEADER_BYTES - 1]) + b"\x09" + bytes(more[HEADER_BYTES:]))
