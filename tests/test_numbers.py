"""A number in an attribute is the same JSON number wherever it is read: a double beyond 64 bits never becomes an integer that
other readers can't hold.
"""

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from spanfold.application.buses import CommandBus, QueryBus
from spanfold.application.queries import FindTraces, GetTrace
from spanfold.bootstrap import http_operations, installation, query_bus
from spanfold.http.api import api_app
from spanfold.http.api_metrics import ApiMetrics
from spanfold.http.operations import operations_router
from spanfold.language.events import SpanRecorded, TraceCreated
from spanfold.language.json_values import decimal_text
from spanfold.language.settings import Settings
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.commands import Invoke
from tests.support.databases import Ledger
from tests.support.stores import commit_records
from tests.support.strategies import CODEC, NOW, record

NUMBERS: dict[str, Any] = {
    "1e20": 1e20, "1e308": 1e308, "-1e20": -1e20, "5e-324": 5e-324, "1e-7": 1e-7, "2**63": 2**63, "2.0**63": 2.0**63,
    "2**64-1": 2**64 - 1, "-2**63": -(2**63), "1e22": 1e22, "1e15": 1e15, "0.1": 0.1, "7": 7,
}  # fmt: skip
TAGS: dict[str, Any] = {**NUMBERS, "nested": {"list": [1e20, {"small": 5e-324}]}}
SAID: dict[str, Any] = {"aggregate_id": "t-1", "occurred_at": NOW, "source": "test"}
EVENTS = [
    TraceCreated(service_name="s", operation_name="o", start_time=NOW, tags=TAGS, **SAID),
    SpanRecorded(
        span_id="1",
        parent_span_id=None,
        kind="server", service_name="s", operation_name="o", start_time=NOW, end_time=NOW + 5, tags=TAGS,
        events=({"name": "e", "time": NOW, "attributes": TAGS},), links=(), **SAID,
    ),
]  # fmt: skip


def exact(value: Any) -> Any:
    """The value with its numbers as the decimals that their JSON texts are."""
    return exact_json(json.dumps(value))


def exact_json(text: str) -> Any:
    assert not re.search(r"(?<![\d.eE+-])-?\d{21}", text), (
        f"a number with more digits than a 64-bit reader takes: {text}"
    )
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@pytest.fixture
def story(ledger: Ledger) -> Ledger:
    commit_records(ledger, Store(installed(), CODEC), [record(event, offset) for offset, event in enumerate(EVENTS)])
    return ledger


@pytest.fixture
async def bus(stack_settings: Settings, story: Ledger) -> AsyncIterator[QueryBus]:
    async with query_bus(stack_settings) as bus:
        yield bus


@pytest.fixture
async def client(stack_settings: Settings, bus: QueryBus) -> AsyncIterator[httpx.AsyncClient]:
    async def no_problems() -> list[str]:
        return []

    operations = operations_router(http_operations(installation(stack_settings)))
    app = api_app(CommandBus(), bus, no_problems, ApiMetrics(), operations)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        yield client


async def test_a_query_answers_what_was_published(bus: QueryBus) -> None:
    trace = (await bus.ask(GetTrace(trace_id="t-1"))).result
    assert trace
    assert exact(trace.tags) == exact(TAGS)


@pytest.mark.parametrize("name", NUMBERS)
async def test_a_trace_is_found_by_the_number(bus: QueryBus, name: str) -> None:
    for tags in ({name: NUMBERS[name]}, {"nested": {"list": [{"small": 5e-324}]}}):
        assert [trace.id for trace in (await bus.ask(FindTraces(tags=tags))).result.items] == ["t-1"]
    assert not (await bus.ask(FindTraces(tags={name: NUMBERS[name] / 3}))).result.items


async def test_http_answers_what_was_published(client: httpx.AsyncClient) -> None:
    asked = await client.post("/queries", json={"query_type": "GetTrace", "query_data": {"trace_id": "t-1"}})
    assert exact_json(asked.text)["result"]["tags"] == exact(TAGS)
    shown = await client.get("/operations/trace", params={"trace_id": "t-1", "history": "true"})
    assert_shown(shown.text)


def test_trace_shows_what_was_published(story: Ledger, invoke: Invoke) -> None:
    assert_shown(invoke("trace", "t-1", "--history", "--json").stdout)
    assert_shown(invoke("trace", "t-1", "--history", "--as-of", "2", "--json").stdout)


def assert_shown(text: str) -> None:
    shown = exact_json(text)
    (span,) = shown["spans"]
    assert shown["trace"]["tags"] == span["tags"] == span["events"][0]["attributes"] == exact(TAGS)
    created, recorded = shown["history"]
    assert created["changed"]["tags"][1] == recorded["spans"][0]["tags"] == exact(TAGS)


def test_sql_shows_what_was_published(story: Ledger, invoke: Invoke) -> None:
    (row,) = exact_json(invoke("sql", "--json", "SELECT tags, events, ARRAY[tags] AS many FROM spans").stdout)
    assert row["tags"] == row["events"][0]["attributes"] == row["many"][0] == exact(TAGS)
    table = invoke("sql", "SELECT tags FROM traces").stdout
    assert exact_json(table.splitlines()[1]) == exact(TAGS)
    untouched = invoke("sql", "SELECT '{\"ü\": [1.50, 20, null]}'::jsonb AS document").stdout
    assert untouched.splitlines()[1].strip() == '{"ü": [1.50, 20, null]}'


def test_sql_shows_doubles_and_numerics_as_json_numbers(story: Ledger, invoke: Invoke) -> None:
    for kind, convert in (("float8", float), ("numeric", lambda number: number)):
        columns = ", ".join(f"'{number!r}'::{kind} AS \"{name}\"" for name, number in NUMBERS.items())
        (row,) = exact_json(invoke("sql", "--json", f"SELECT {columns}").stdout)
        assert row == {name: exact(convert(number)) for name, number in NUMBERS.items()}
    values = ", ".join(f"('{number!r}'::numeric)" for number in NUMBERS.values())
    table = invoke("sql", f"SELECT * FROM (VALUES {values}) AS numbers (value)").stdout
    assert [exact_json(line) for line in table.splitlines()[1:]] == [exact(number) for number in NUMBERS.values()]


def test_a_numeric_keeps_all_its_digits() -> None:
    for text in ("1.10", "0", "-7.5", "1" * 40, "0." + "1" * 40, "-12345678901234567890.50", "9" * 19, "1e-300"):
        assert Decimal(decimal_text(Decimal(text))) == Decimal(text)
        assert float(json.loads(decimal_text(Decimal(text)))) == float(text)
    assert decimal_text(Decimal("1.10")) == "1.10"
    assert decimal_text(Decimal(10) ** 20) == "1e+20"


def test_sql_shows_a_number_that_no_double_holds_as_postgres_writes_it(story: Ledger, invoke: Invoke) -> None:
    statement = "SELECT '[1e400]'::jsonb AS document"
    assert json.loads(invoke("sql", "--json", statement).stdout) == [{"document": [10**400]}]
    assert json.loads(invoke("sql", statement).stdout.splitlines()[1]) == [10**400]
