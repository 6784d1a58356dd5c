"""Documents that somebody else wrote: what can't be stored parks its record alone, all else is brought into canonical form."""

from typing import Any

import pytest

from spanfold.language.events import SpanRecorded
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.strategies import NOW, Record, batch, record, written

DEEP = '{"a":' * 64 + "1" + "}" * 64
TOO_DEEP = '{"a":' * 65 + "1" + "}" * 65

BAD = [
    ("tags", "nope", "not JSON"),
    ("tags", "", "not JSON"),
    ("tags", '{"a":1} {}', "not JSON"),
    ("tags", '{"a":1e400}', "number is infinity when parsed as double"),
    ("tags", '{"a":1e131071}', "number is infinity when parsed as double"),
    ("tags", '{"a":[{"b":1,"c":2,"b":3}]}', "the key 'b' occurs twice in an object"),
    ("tags", '{"a":"x\\u0000"}', "a NUL character can't be stored"),
    ("tags", '{"\\u0000":1}', "a NUL character can't be stored"),
    ("tags", '{"a":"\\ud800"}', "not JSON"),
    ("tags", TOO_DEEP, "more than 64 levels deep"),
    ("tags", "[" * 5000 + "]" * 5000, "not JSON"),
    ("tags", "[1]", "expected an object, got [1]"),
    ("resource", '"shop"', 'expected an object, got "shop"'),
    ("scope_attributes", "null", "expected an object, got null"),
    ("events", "{}", "expected a list, got {}"),
    ("events", '[{"name":"a","time":1}]', "[0]: expected an object of name, time, attributes"),
    ("events", '[{"name":"a","time":1.5,"attributes":{}}]', "[0].time: expected an integer"),
    ("links", '[{"trace_id":1,"span_id":"a","attributes":{}}]', "[0].trace_id: expected text"),
    ("links", '[{"trace_id":"a","span_id":"a","attributes":[]}]', "[0].attributes: expected an object"),
]

CANONICAL = [
    ('{ "b" : 1E2, "a" : -0 }', '{"a": 0, "b": 100.0}'),
    ('{"a":100000000000000000000000}', '{"a": 100000000000000000000000}'),
    ('{"a":0.1234567890123456789012345}', '{"a": 0.12345678901234568}'),
    ('{"\\u0061":"\\u00e4\\/"}', '{"a": "ä/"}'),
    (DEEP, DEEP.replace(":", ": ")),
]


def span(number: int) -> SpanRecorded:
    return SpanRecorded(
        aggregate_id="a", occurred_at=NOW, source="test", span_id=str(number), parent_span_id=None, service_name="shop",
        operation_name="pay", start_time=NOW - 1, end_time=NOW,
    )  # fmt: skip


def fold(ledger: Ledger, *records: Record) -> Any:
    store = Store(installed())
    return store.commit(ledger, store.prepare(batch(list(records))))


@pytest.mark.parametrize(("field", "text", "why"), BAD)
def test_a_document_that_is_none_parks_its_record_alone(ledger: Ledger, field: str, text: str, why: str) -> None:
    (outcome,) = fold(ledger, record(span(0), 0), written(span(1), 1, **{field: text}), record(span(2), 2))
    assert (outcome.folded, outcome.parked) == (2, {"invalid": 1})
    ((position, detail),) = ledger.execute("SELECT kafka_offset, detail FROM spanfold.parked_records").fetchall()
    assert position == 1
    assert detail.startswith(f"{field}: ")
    assert why in detail
    assert ledger.execute("SELECT count(*) FROM spanfold.spans").fetchone() == (2,)


@pytest.mark.parametrize(("text", "row"), CANONICAL)
def test_a_document_is_kept_in_canonical_form(ledger: Ledger, text: str, row: str) -> None:
    (outcome,) = fold(ledger, written(span(0), tags=text))
    assert outcome.folded == 1
    assert ledger.execute("SELECT tags::text FROM spanfold.spans").fetchone() == (row,)


def test_two_resources_with_one_hash_stay_two(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanfold.projections import resources

    monkeypatch.setattr(resources, "hash_of", lambda partition, source, salt: salt.to_bytes(16, "big"))
    first, second = ({"resource": f'{{"service.version":"{version}"}}'} for version in (1, 2))
    fold(ledger, written(span(0), 0, **first))
    fold(ledger, written(span(1), 1, **second), written(span(2), 2, **first))
    rows = ledger.execute("SELECT span_id, service_version FROM spanfold.spans ORDER BY 1").fetchall()
    assert rows == [("0", "1"), ("1", "2"), ("2", "1")]
    assert ledger.execute("SELECT count(*) FROM traces_g1.resources").fetchone() == (2,)
