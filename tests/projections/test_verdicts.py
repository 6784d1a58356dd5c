"""Each verdict by the rules' own table; and a batch judged at once says what its records say one by one."""

from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spanfold.language.events import TraceCompleted, TraceEvent
from spanfold.language.ids import id_text
from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import Verdict, _read_all, _read_each, judge
from spanfold.projections.projection import installed
from tests.support.strategies import DAY, LOG_TIME_MS, NOW, Record, batch, record

ID = b"01a1ee56-5e00-8541-9c80-8532148669b2"


def ended(trace_id: str = "a", at: int = NOW, **changes: Any) -> TraceCompleted:
    return TraceCompleted(aggregate_id=trace_id, occurred_at=at, source="test", end_time=at, **changes)


def verdict_of(one: Record, **where: int) -> tuple[Verdict, str] | None:
    """The verdict and its detail, or None: no rule but the journal's may reject it."""
    rejection = judge(batch([one], **where)).rejections.get(0)
    return None if rejection is None else (rejection.verdict, rejection.detail)


def with_header(name: str, value: bytes | None) -> Record:
    return record(ended(), headers=[(key, value if key == name else was) for key, was in headers_of(ended())])


def test_a_record_as_the_publisher_writes_it_is_rejected_by_no_rule() -> None:
    assert verdict_of(record(ended())) is None


def test_what_the_headers_say_is_read() -> None:
    event = ended("trace ü", NOW - 5)
    judged = judge(batch([record(event)]))
    assert judged.aggregate_ids == ["trace ü"]
    assert judged.event_ids == [event.event_id]
    assert judged.event_types == ["TraceCompleted"]
    assert judged.occurred_at == [NOW - 5]


# malformed


@pytest.mark.parametrize(
    "key",
    [None, b"", b"a\0b", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"k" * 513, "ü".encode() * 257],
    ids=["null", "empty", "NUL inside", "NUL", "not UTF-8", "a surrogate", "513 bytes", "514 bytes"],
)
def test_a_record_without_a_usable_key_is_malformed(key: bytes | None) -> None:
    verdict = verdict_of(record(ended(), key=key))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED
    assert "key" in verdict[1]


@pytest.mark.parametrize("key", [b"a", b"k" * 512, "ü".encode() * 256, b" ", b"\n", "🜁".encode()])
def test_any_text_of_1_to_512_bytes_is_a_key(key: bytes) -> None:
    assert verdict_of(record(ended(), key=key)) is None


@pytest.mark.parametrize("name", ["event_id", "event_type", "occurred_at"])
def test_a_record_without_a_header_that_it_needs_is_malformed(name: str) -> None:
    headers = [(key, value) for key, value in headers_of(ended()) if key != name]
    for each in (record(ended(), headers=headers), with_header(name, None), with_header(name, b"")):
        verdict = verdict_of(each)
        assert verdict
        assert verdict[0] == Verdict.MALFORMED
        assert name in verdict[1]


def test_a_record_without_any_header_is_malformed() -> None:
    verdict = verdict_of(record(ended(), headers=[]))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED


BAD_IDS = [
    ID[:-1],
    ID + b"0",
    b" " + ID[:-1],
    ID[:-1] + b"\n",
    ID + b"\n",
    ID.replace(b"-", b""),
    b"{" + ID + b"}",
    ID.replace(b"-", b" "),
    ID[:9] + b"-" + ID[10:],
    ID.replace(b"01", b"0g", 1),
    ID.replace(b"01", b"0x", 1),
    ID.replace(b"01", b"  ", 1),
    ID.replace(b"01", "\u0661".encode(), 1),
    ID.replace(b"0", b"\0", 1),
    ID.replace(b"01", b"\xff\xff", 1),
    b"0" * 36,
    b"-" * 36,
    b"                                    ",
]


@pytest.mark.parametrize("raw", BAD_IDS, ids=repr)
def test_an_event_id_is_the_36_characters_of_a_uuid_or_malformed(raw: bytes) -> None:
    verdict = verdict_of(with_header("event_id", raw))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED
    assert "event_id" in verdict[1]


def test_the_case_of_an_event_id_means_nothing() -> None:
    event = ended()
    judged = judge(batch([with_header("event_id", id_text(event.event_id).upper().encode())]))
    assert (judged.rejections, judged.event_ids) == ({}, [event.event_id])


BAD_TIMES = [
    b"1_795_000_000_000_000",
    b" 1795000000000000",
    b"1795000000000000\n",
    b"+1795000000000000",
    b"--1",
    b"-",
    b"1795000000.0",
    b"1.795e15",
    b"0x660F5C3A2C000",
    "\u0661\u0667\u0669\u0665".encode(),
    "\uff11\uff17\uff19\uff15".encode(),
    "\u00b2".encode(),
    b"1" * 19,
    b"-" + b"1" * 19,
    b"now",
    b"2026-11-18T00:00:00Z",
    b"\xff",
]


@pytest.mark.parametrize("raw", BAD_TIMES, ids=repr)
def test_a_time_is_decimal_microseconds_or_malformed(raw: bytes) -> None:
    verdict = verdict_of(with_header("occurred_at", raw))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED
    assert "occurred_at" in verdict[1]


@pytest.mark.parametrize("raw", [b"a\0", b"\xff", b"t" * 256], ids=repr)
def test_an_event_type_is_a_short_text_or_malformed(raw: bytes) -> None:
    verdict = verdict_of(with_header("event_type", raw))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED
    assert "event_type" in verdict[1]


def test_a_type_that_nobody_knows_is_no_reason_to_reject() -> None:
    assert verdict_of(with_header("event_type", b"SomethingOfTomorrow")) is None


def test_of_a_header_that_is_there_twice_the_last_one_counts() -> None:
    twice = [("event_id", b"nonsense"), *headers_of(ended())]
    assert verdict_of(record(ended(), headers=twice)) is None
    verdict = verdict_of(record(ended(), headers=list(reversed(twice))))
    assert verdict
    assert verdict[0] == Verdict.MALFORMED


def test_other_headers_mean_nothing() -> None:
    extra = [*headers_of(ended()), ("traceparent", None), ("x", b"\xff\0"), ("", b"")]
    assert verdict_of(record(ended(), headers=extra)) is None


# misrouted


@pytest.mark.parametrize("partitions", [2, 3, 4, 1000])
def test_only_in_its_own_partition_is_a_record_not_misrouted(partitions: int) -> None:
    home = int(partitions_of([b"a"], partitions)[0])
    assert verdict_of(record(ended("a")), partition=home, partitions=partitions) is None
    for elsewhere in {0, 1, partitions - 1} - {home}:
        assert verdict_of(record(ended("a")), partition=elsewhere, partitions=partitions) == (
            Verdict.MISROUTED,
            f"the key belongs to partition {home}: publish with the murmur2 partitioner",
        )


def test_each_key_of_a_batch_is_at_home_or_not_for_itself() -> None:
    keys = [f"key {number % 17}" for number in range(100)]
    homes = partitions_of([key.encode() for key in keys], 3).tolist()
    judged = judge(batch([record(ended(key), at) for at, key in enumerate(keys)], partition=1, partitions=3))
    assert judged.rejections.keys() == {index for index, home in enumerate(homes) if home != 1}


JAVAS_VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
"""org.apache.kafka.common.utils.UtilsTest, testMurmur2."""


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, 12, 1000, 0x7FFFFFFF])
def test_a_key_goes_where_javas_clients_send_it(partitions: int) -> None:
    keys = [key for key, _ in JAVAS_VECTORS]
    expected = [(hashed & 0x7FFFFFFF) % partitions for _, hashed in JAVAS_VECTORS]
    assert partitions_of(keys, partitions).tolist() == expected
    assert [int(partitions_of([key], partitions)[0]) for key in keys] == expected


# expired and future


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0, None),
        (30 * DAY, None),
        (30 * DAY + 1, Verdict.EXPIRED),
        (400 * DAY, Verdict.EXPIRED),
        (-DAY, None),
        (-DAY - 1, Verdict.FUTURE),
        (-400 * DAY, Verdict.FUTURE),
    ],
)
def test_an_event_is_expired_or_future_by_the_logs_time_to_the_microsecond(age: int, expected: Verdict | None) -> None:
    verdict = verdict_of(record(ended(at=NOW - age)))
    assert (verdict and verdict[0]) == expected


@pytest.mark.parametrize("at", [-(10**18) + 1, -1, 0, 10**18 - 1])
def test_the_most_absurd_times_are_expired_or_future(at: int) -> None:
    verdict = verdict_of(record(ended(at=at)))
    assert verdict
    assert verdict[0] == (Verdict.EXPIRED if at < NOW else Verdict.FUTURE)


def test_no_clock_but_the_logs_is_asked() -> None:
    for log_time in (0, LOG_TIME_MS // 2, LOG_TIME_MS * 2):
        assert verdict_of(record(ended(at=log_time * 1000), log_time_ms=log_time)) is None


# which rule comes first


def test_the_first_rule_that_applies_decides() -> None:
    elsewhere = 1 - int(partitions_of([b"a"], 2)[0])
    old = ended("a", NOW - 31 * DAY)
    malformed = record(old, headers=[*headers_of(old), ("event_id", b"?")])
    for expected, each, where in (
        (Verdict.MALFORMED, malformed, {"partition": elsewhere, "partitions": 2}),
        (Verdict.MISROUTED, record(old), {"partition": elsewhere, "partitions": 2}),
        (Verdict.EXPIRED, record(old), {"partition": 1 - elsewhere, "partitions": 2}),
    ):
        verdict = verdict_of(each, **where)
        assert verdict
        assert verdict[0] == expected


def test_what_is_rejected_for_itself_is_never_called_a_duplicate(ledger: psycopg.Connection[Any]) -> None:
    good, old = ended(), ended(at=NOW - 31 * DAY)
    log = [record(each, offset) for offset, each in enumerate([old, old, good, good])]
    assert journaled(ledger, log) == ["expired", "expired", "accepted", "duplicate"]


# duplicate: the journal's rule


def journaled(ledger: psycopg.Connection[Any], *batches: list[Record]) -> list[str]:
    """The verdicts of these records, folded batch by batch."""
    store = Store(installed())
    for each in batches:
        store.commit(ledger, store.prepare(batch(each)))
    rows = ledger.execute("SELECT verdict FROM spanfold.verdicts ORDER BY kafka_offset").fetchall()
    return [verdict for (verdict,) in rows]


def as_log(*events: TraceEvent) -> list[Record]:
    return [record(event, offset) for offset, event in enumerate(events)]


def test_of_equal_events_in_one_batch_the_first_is_accepted(ledger: psycopg.Connection[Any]) -> None:
    assert journaled(ledger, as_log(ended(), ended("b"), ended(), ended())) == [
        "accepted", "accepted", "duplicate", "duplicate",
    ]  # fmt: skip


def test_an_event_of_an_earlier_batch_is_a_duplicate(ledger: psycopg.Connection[Any]) -> None:
    log = as_log(ended(), ended("b"), ended("c"), ended(), ended("b"), ended("d"))
    assert journaled(ledger, log[:2], log[2:]) == [
        "accepted", "accepted", "accepted", "duplicate", "duplicate", "accepted",
    ]  # fmt: skip


def test_an_event_is_a_duplicate_however_late_it_comes_again(ledger: psycopg.Connection[Any]) -> None:
    late = [record(ended(), offset, log_time_ms=LOG_TIME_MS + offset * 10 * 86_400_000) for offset in range(4)]
    assert journaled(ledger, *([each] for each in late)) == ["accepted", "duplicate", "duplicate", "duplicate"]


def test_a_payload_that_came_before_under_another_id_is_another_event(ledger: psycopg.Connection[Any]) -> None:
    other = ended(event_id=bytes.fromhex("00" * 15 + "01"))
    assert journaled(ledger, as_log(ended(), other)) == ["accepted", "accepted"]


def test_identity_is_the_id_and_the_events_day(ledger: psycopg.Connection[Any]) -> None:
    same_day, next_day = (ended(at=at, event_id=ended().event_id) for at in (NOW + 1, NOW - DAY))
    assert journaled(ledger, as_log(ended(), same_day, next_day)) == ["accepted", "duplicate", "accepted"]


def test_a_parked_record_has_been_accepted_so_its_double_is_a_duplicate(ledger: psycopg.Connection[Any]) -> None:
    unreadable = [record(ended(), 0, value=b"?"), record(ended(), 1)]
    assert journaled(ledger, unreadable) == ["accepted", "duplicate"]
    assert ledger.execute("SELECT kafka_offset, reason FROM spanfold.parked_records").fetchall() == [(0, "unreadable")]


def test_a_double_that_is_unreadable_is_a_duplicate_and_is_not_parked(ledger: psycopg.Connection[Any]) -> None:
    log = [record(ended(), 0), record(ended(), 1, value=b"?"), record(ended(), 2, value=None)]
    assert journaled(ledger, log[:2], log[2:]) == ["accepted", "duplicate", "duplicate"]
    assert ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchone() == (0,)


# a whole batch at once, and record by record

ids = st.sampled_from([ID, ID.upper(), *BAD_IDS]) | st.binary(max_size=40)
times = st.sampled_from([b"0", b"-1", b"1795000000000000", b"9" * 18, b"-" + b"9" * 18, *BAD_TIMES]) | st.integers(
    -(10**19), 10**19
).map(lambda number: str(number).encode())
types = st.sampled_from([b"TraceCreated", "Ü".encode(), b"t" * 255, b"t" * 256, b"a\0"]) | st.binary(max_size=4)
keys = st.none() | st.sampled_from([b"a", b"k" * 512, b"k" * 513, b"a\0", "ü".encode()]) | st.binary(max_size=6)
well_formed = st.tuples(
    st.just(ID), st.just(b"TraceCreated"), st.integers(-(10**18) + 1, 10**18 - 1).map(lambda n: str(n).encode())
)
values = well_formed | st.tuples(st.none() | ids, st.none() | types, st.none() | times)


@st.composite
def odd_records(draw: st.DrawFn) -> Record:
    named = list(zip(("event_id", "event_type", "occurred_at"), draw(values), strict=True))
    if draw(st.integers(0, 9)) == 0:
        named = draw(st.permutations([*named, *named]))[: draw(st.integers(0, 6))]
    return Record(0, draw(st.just(b"a") | keys), named, None)


def _odd(event_id: bytes, at: bytes = b"0") -> Record:
    return Record(0, b"a", [("event_id", event_id), ("event_type", b"T"), ("occurred_at", at)], None)


@settings(max_examples=1000, deadline=None)
@given(st.lists(odd_records(), max_size=4))
# 35 and 37 characters side by side are 72 together, and so are an id that lacks digits and one that has too many
@example([_odd(ID[:-1]), _odd(ID + b"0")])
@example([_odd(ID + b"0"), _odd(ID[:-1])])
@example([_odd(ID[:9] + b"--" + ID[11:]), _odd(ID.replace(b"-", b"0"))])
@example([_odd(ID[:-2] + b"  "), _odd(ID)])
@example([_odd(ID, b"1_0"), _odd(ID, b" 1")])
@example([_odd(ID, b""), _odd(ID, b"1")])
@example([_odd(ID, "\u0661".encode()), _odd(ID, "\u00b2".encode())])
def test_a_batch_judged_at_once_says_what_its_records_say_one_by_one(records: list[Record]) -> None:
    whole = batch(records)
    each = _read_each(whole)
    at_once = _read_all(whole) if records else None
    assert at_once is None or at_once == each
    judged = judge(whole)
    alone = [judge(batch([one])) for one in records]
    for index, single in enumerate(alone):
        assert judged.rejections.get(index) == single.rejections.get(0)
        assert judged.event_ids[index] == single.event_ids[0]
        assert judged.event_types[index] == single.event_types[0]
        assert judged.occurred_at[index] == single.occurred_at[0]
        assert judged.aggregate_ids[index] == single.aggregate_ids[0]


def test_well_formed_records_are_read_at_once() -> None:
    assert _read_all(batch([record(ended(str(number))) for number in range(10)])) is not None
