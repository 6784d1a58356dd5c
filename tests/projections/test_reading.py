"""Bad input is parked for a reason that says what was wrong; what only looks bad is a fact."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spanfold.language.errors import PoisonRecord
from spanfold.language.events import TraceEvent
from spanfold.language.records import headers_of
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.facts import Fact
from spanfold.projections.projection import installed
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec
from tests.support.single_events import completed, created, failed, span
from tests.support.strategies import CODEC, MIN_TIME, NOW, Record, batch, events, record, written
from tests.support.trace_rows import shown, told

LAST_TIME = (1 << 63) - 1


def reading(records: Sequence[Record]) -> tuple[list[Fact], dict[int, PoisonRecord]]:
    parked: dict[int, PoisonRecord] = {}
    judged = judge(batch(records))
    assert not judged.rejections
    return read(judged, CODEC, parked), parked


def reason_of(one: Record) -> tuple[str, str] | None:
    """Why the record is parked, or None: it is a fact."""
    facts, parked = reading([one])
    assert len(facts) + len(parked) == 1
    return (parked[0].reason, parked[0].detail) if parked else None


# unreadable


def test_a_record_cut_off_anywhere_is_unreadable() -> None:
    whole = record(span(tags={"a": "b", "c": [1, 2.0]}))
    assert whole.value
    assert reason_of(whole) is None
    for length in range(len(whole.value)):
        reason = reason_of(replace(whole, value=whole.value[:length]))
        assert reason
        assert reason[0] == "unreadable"


def test_bytes_after_the_end_are_unreadable() -> None:
    whole = record(created())
    assert whole.value
    assert reason_of(replace(whole, value=whole.value + b"\0\0")) == (
        "unreadable", "2 bytes after the end of TraceCreated",
    )  # fmt: skip


def test_a_null_value_is_unreadable() -> None:
    assert reason_of(record(created(), value=None)) == ("unreadable", "the value is null")


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"{}", b'{"a": 1}', b"\x01", b"\x80", b"\xff"], ids=repr)
def test_what_is_not_framed_is_unreadable(value: bytes) -> None:
    body = record(created()).value
    assert body
    reason = reason_of(record(created(), value=value + body[1:] if len(value) == 1 and value != b"\0" else value))
    assert reason
    assert reason[0] == "unreadable"
    assert "magic byte 0" in reason[1]


def test_text_that_is_not_utf_8_is_unreadable() -> None:
    whole = record(created(service_name="shop"))
    assert whole.value
    reason = reason_of(replace(whole, value=whole.value.replace(b"shop", b"sh\xffp")))
    assert reason
    assert reason[0] == "unreadable"


@pytest.mark.parametrize("schema_id", [0, 1, 1_399_999_999, 1_499_999_999, 0xFFFFFFFF])
def test_an_unknown_schema_says_upgrade_then_retry(schema_id: int) -> None:
    whole = record(created())
    assert whole.value
    unknown = whole.value[:1] + schema_id.to_bytes(4, "big") + whole.value[5:]
    assert reason_of(replace(whole, value=unknown)) == (
        "unknown_schema", f"schema id {schema_id} is unknown here: upgrade, then retry",
    )  # fmt: skip


FRAMES = [b"\0" + entry.id.to_bytes(4, "big") for entry in committed()]


@settings(max_examples=500, deadline=2000)
@given(st.sampled_from(FRAMES), st.binary(max_size=200))
# lengths and counts of 2**62 are no reason to ask for that much memory, nor to go on for ever
@example(FRAMES[0], bytes(16) + b"\x02" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f")
@example(FRAMES[2], bytes(16) + b"\0\0\0\0\0\0" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f")
@example(FRAMES[2], bytes(16) + b"\0\0\0\0\0\0" + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0")
# the state of an aggregate is no event
@example(b"\0" + committed().latest("TraceSnapshot").id.to_bytes(4, "big"), b"\0")
def test_no_bytes_raise_anything_but_their_reason(frame: bytes, body: bytes) -> None:
    reason = reason_of(record(created(), value=frame + body))
    assert reason
    assert reason[0] in ("unreadable", "contradiction")


# contradiction


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_id", b"01a1ee56-5e00-8541-9c80-8532148669b2"),
        ("occurred_at", str(NOW + 1).encode()),
        ("event_type", b"TraceFailed"),
        ("event_type", b"SomethingOfTomorrow"),
    ],
)
def test_a_header_that_contradicts_the_payload_is_named(name: str, value: bytes) -> None:
    headers = [(key, value if key == name else was) for key, was in headers_of(completed())]
    reason = reason_of(record(completed(), headers=headers))
    assert reason
    assert reason[0] == "contradiction"
    assert f"{name} is " in reason[1]
    assert reason[1].count(" is ") == 1


def test_a_key_that_contradicts_the_payload_is_named() -> None:
    assert reason_of(record(completed("a"), key=b"b")) == (
        "contradiction", "the payload contradicts key or headers: aggregate_id is 'a', not 'b'",
    )  # fmt: skip


def test_one_that_contradicts_leaves_the_others_of_its_batch_alone() -> None:
    good = [record(created(str(number)), number) for number in range(9)]
    bad = record(completed("x"), 9, key=b"y")
    facts, parked = reading([*good, bad])
    assert [offset for offset, _, _ in facts] == list(range(9))
    assert list(parked) == [9]


# invalid


@pytest.mark.parametrize(
    ("event", "where"),
    [
        (created(service_name="a\0"), "service_name"),
        (created(operation_name="\0"), "operation_name"),
        (span(span_id="\0"), "span_id"),
        (span(parent_span_id="\0"), "parent_span_id"),
        (span(kind="\0"), "kind"),
        (span(status="\0"), "status"),
        (span(status_message="\0"), "status_message"),
        (completed(status="\0"), "status"),
        (failed(error="it \0 broke"), "error"),
    ],
)
def test_a_nul_that_postgres_cannot_hold_is_invalid_wherever_it_is(event: TraceEvent, where: str) -> None:
    reason = reason_of(record(event))
    assert reason
    assert reason[0] == "invalid"
    assert f"NUL character in {where}:" in reason[1]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("tags", r'{"a\u0000b":1}'),
        ("tags", r'{"a":"\u0000"}'),
        ("tags", r'{"a":["b","\u0000"]}'),
        ("tags", r'{"a":"\\u0000","b":"\\\u0000"}'),
        ("events", r'[{"name":"\u0000","time":0,"attributes":{}}]'),
        ("events", r'[{"name":"","time":0,"attributes":{"a":["\u0000"]}}]'),
        ("links", r'[{"trace_id":"\u0000","span_id":"","attributes":{}}]'),
        ("links", r'[{"trace_id":"","span_id":"","attributes":{"\u0000":"NaN"}}]'),
    ],
)
def test_a_nul_in_a_document_is_invalid_wherever_it_is(where: str, text: str) -> None:
    assert reason_of(written(span(), 0, **{where: text})) == (
        "invalid", f"{where}: a NUL character can't be stored: remove it",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "null", "\\0", "\x01", "\x7f", "\ufffe", "\u2028"])
def test_what_only_looks_like_a_nul_is_a_fact(text: str) -> None:
    assert reason_of(record(created(service_name=text, tags={text: text, "a": [text]}))) is None


def test_a_span_that_ends_before_it_starts_is_invalid() -> None:
    assert reason_of(record(span(start_time=NOW, end_time=NOW - 1))) == ("invalid", "end_time lies before start_time")
    assert reason_of(record(span(start_time=NOW, end_time=NOW))) is None


@pytest.mark.parametrize(
    ("event", "where"),
    [
        (created(start_time=MIN_TIME - 1), "start_time"),
        (created(start_time=-(1 << 63)), "start_time"),
        (span(start_time=MIN_TIME - 1), "start_time"),
        (completed(end_time=MIN_TIME - 1), "end_time"),
        (failed(end_time=MIN_TIME - 1), "end_time"),
    ],
)
def test_a_time_before_4714_bc_is_invalid(event: TraceEvent, where: str) -> None:
    assert reason_of(record(event)) == (
        "invalid", f"{where} lies before 4714 BC, where Postgres' time begins",
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=5), st.lists(st.sampled_from(["value", "nul", "key"]) | st.none(), max_size=5))
def test_a_batch_read_at_once_says_what_its_records_say_one_by_one(
    given_events: list[TraceEvent], faults: list[str | None]
) -> None:
    records = []
    for offset, event in enumerate(given_events):
        match faults[offset] if offset < len(faults) else None:
            case "value":
                records.append(record(event, offset, value=b"?"))
            case "nul":
                records.append(written(event, offset, tags=r'{"a":"\u0000"}'))
            case "key":
                records.append(record(event, offset, key=b"another"))
            case _:
                records.append(record(event, offset))
    facts, parked = reading(records)
    alone = [reason_of(each) for each in records]
    assert {index: (why.reason, why.detail) for index, why in parked.items()} == {
        index: why for index, why in enumerate(alone) if why
    }
    together = {offset: fact for offset, *fact in facts}
    assert together == {each.offset: fact for each in records for _, *fact in reading([each])[0]}


# what comes to lie in Postgres


def commit(ledger: psycopg.Connection[Any], records: Sequence[Record]) -> list[Outcome]:
    store = Store(installed(), Codec())
    return store.commit(ledger, store.prepare(batch(records)))


def test_numbers_that_json_lacks_are_stored_as_texts(ledger: psycopg.Connection[Any]) -> None:
    odd = {"nan": math.nan, "up": math.inf, "down": -math.inf, "all": [1, math.nan, "null", True], "word": "null"}
    commit(ledger, [record(created(tags=odd)), record(span(events=({"name": "n", "time": 1, "attributes": odd},)), 1)])
    expected = {
        "nan": "NaN", "up": "Infinity", "down": "-Infinity", "all": [1, "NaN", "null", True], "word": "null",
    }  # fmt: skip
    assert ledger.execute("SELECT tags FROM spanfold.traces").fetchone() == (expected,)
    assert ledger.execute("SELECT events FROM spanfold.spans").fetchone() == (
        [{"name": "n", "time": 1, "attributes": expected}],
    )


def test_the_greatest_and_smallest_numbers_are_stored_as_they_are(ledger: psycopg.Connection[Any]) -> None:
    odd = {"max": (1 << 63) - 1, "min": -(1 << 63), "huge": 1.7976931348623157e308, "tiny": 5e-324, "third": 1 / 3}
    event = created(tags=odd)
    commit(ledger, [record(event)])
    assert shown(ledger) == told([event])


def test_a_trace_of_which_only_the_end_is_known_is_a_row(ledger: psycopg.Connection[Any]) -> None:
    commit(ledger, [record(completed())])
    row = ledger.execute(
        "SELECT trace_id, service_name, status, start_time, duration_ms, span_count FROM spanfold.traces"
    )
    assert row.fetchall() == [("a", None, "completed", None, None, 0)]


def test_a_span_from_the_first_to_the_last_instant_hides_no_other_row(ledger: psycopg.Connection[Any]) -> None:
    longest = {"start_time": MIN_TIME, "end_time": LAST_TIME}
    log: list[TraceEvent] = [
        span("a", **longest), created("b", start_time=MIN_TIME), completed("b", end_time=LAST_TIME), span("c"),
    ]  # fmt: skip
    commit(ledger, [record(event, offset) for offset, event in enumerate(log)])
    milliseconds = (LAST_TIME - MIN_TIME) / 1000
    spans = dict(ledger.execute("SELECT trace_id, duration_ms FROM spanfold.spans").fetchall())
    assert spans == {"a": pytest.approx(milliseconds), "c": 0.001}
    traces = dict(ledger.execute("SELECT trace_id, duration_ms FROM spanfold.traces").fetchall())
    # a trace without a root lasts as long as its spans
    assert traces == {"a": pytest.approx(milliseconds), "b": pytest.approx(milliseconds), "c": 0.001}


BAD: dict[str, Record] = {
    "unreadable": record(created("bad"), value=b"?"),
    "unreadable, cut off": record(created("bad 1"), value=(record(created("bad 1")).value or b"")[:-3]),
    "unreadable, trailing": record(created("bad 2"), value=(record(created("bad 2")).value or b"") + b"."),
    "unreadable, null": record(created("bad 3"), value=None),
    "unknown_schema": record(created("bad 4"), value=b"\0\0\0\0\x07" + b"body"),
    "contradiction": record(created("bad 5"), headers=headers_of(completed("bad 5"))),
    "contradiction, key": record(created("bad 6"), key=b"bad 7"),
    "invalid": written(created("bad 8"), tags=r'{"a":"\u0000"}'),
    "invalid, text": record(failed("bad 9", error="\0")),
    "invalid, time": record(completed("bad 10", end_time=-(1 << 63))),
    "invalid, end": record(span("bad 11", end_time=NOW - 1)),
    "malformed": record(created("bad 12"), headers=[]),
    "malformed, key": record(created("bad 13"), key=None),
    "expired": record(replace(created("bad 14"), occurred_at=0, event_id=b"")),
    "expired, before 4714 BC": record(replace(created("bad 15"), occurred_at=-(10**18) + 1, event_id=b"")),
    "future": record(replace(created("bad 16"), occurred_at=10**18 - 1, event_id=b"")),
    "duplicate": record(created("good 0")),
}
VERDICTS = ("malformed", "expired", "future", "duplicate")


def test_among_bad_records_of_every_kind_no_good_one_is_lost(ledger: psycopg.Connection[Any]) -> None:
    good: list[TraceEvent] = [
        make(f"good {number // 4}")
        for number, make in enumerate(list[Callable[..., TraceEvent]]([created, span, completed, failed]) * 5)
    ]
    log: list[Record] = []
    expected: dict[int, str] = {}
    bad = list(BAD.items())
    for number, event in enumerate(good):
        log.append(record(event, len(log)))
        for name, one in bad[number : number + 1]:
            expected[len(log)] = name.partition(",")[0]
            log.append(replace(one, offset=len(log)))
    assert len(expected) == len(BAD)
    commit(ledger, log)
    assert shown(ledger) == told(good)
    rejected = ledger.execute("SELECT kafka_offset, verdict FROM spanfold.verdicts WHERE verdict <> 'accepted'")
    parked = ledger.execute("SELECT kafka_offset, reason FROM spanfold.parked_records")
    assert dict(rejected.fetchall()) == {at: why for at, why in expected.items() if why in VERDICTS}
    assert dict(parked.fetchall()) == {at: why for at, why in expected.items() if why not in VERDICTS}
    assert ledger.execute("SELECT count(*) FROM spanfold.verdicts").fetchone() == (len(log),)


def test_a_parked_record_keeps_its_bytes_and_position(ledger: psycopg.Connection[Any]) -> None:
    headers = [*headers_of(completed()), ("odd", b"\xff"), ("nul", b"\0"), ("none", None), ("text", "ü".encode())]
    commit(ledger, [record(created()), record(completed(), 1, headers=headers, value=b"?\0?")])
    row = ledger.execute(
        "SELECT topic, partition, kafka_offset, key, headers, payload, aggregate_id FROM spanfold.parked_records"
    ).fetchone()
    written = [[name, value.decode()] for name, value in headers_of(completed())]
    odd = [["odd", {"hex": "ff"}], ["nul", {"hex": "00"}], ["none", None], ["text", "ü"]]
    assert row == ("spanfold.traces", 0, 1, b"a", written + odd, b"?\0?", "a")
