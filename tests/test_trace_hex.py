"""trace_hex: a trace id as 32 hex digits, and the ways to find a trace by it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanfold.application.queries import GetTrace
from spanfold.bootstrap import installation, query_bus
from spanfold.language.events import LogRecorded, TraceCreated
from spanfold.language.ids import trace_hex
from spanfold.language.settings import Settings
from spanfold.language.topics import LOGS
from spanfold.operations.erasure import contents_to_erase
from spanfold.operations.trace import read_trace
from spanfold.operations.trace_ids import WITH_TRACE_HEX
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.projections.queries.traces import TRACE
from tests.support.databases import Ledger
from tests.support.stores import commit_records
from tests.support.strategies import CODEC, NOW, batch, record

HEX = "4bf92f3577b34da6a3ce929d0e0e4736"
ORDER, LOGGED, ERASED = "order-1", "only logged", "erased"
SAID: dict[str, Any] = {"occurred_at": NOW, "source": "test"}

ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.from_regex(
    r"[0-9a-fA-F]{31,33}\n?", fullmatch=True
)


@pytest.fixture(scope="module")
def connection(servers: Any, prepared_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(servers.dsn_of(prepared_database), autocommit=True) as connection:
        yield connection


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace_id=ids)
@example(HEX)
@example(HEX + "\n")
@example("\n" + HEX)
@example(HEX.upper())
@example("")
def test_python_and_postgres_agree(connection: psycopg.Connection[Any], trace_id: str) -> None:
    (row,) = connection.execute("SELECT spanfold.trace_hex(%s::text)", (trace_id,)).fetchall()
    assert row == (trace_hex(trace_id),)
    assert trace_hex(trace_hex(trace_id)) == trace_hex(trace_id)
    assert trace_hex(HEX) == HEX


def test_the_function_may_be_indexed_and_run_in_parallel(connection: psycopg.Connection[Any]) -> None:
    query = """
        SELECT provolatile::text, proparallel::text, proisstrict
          FROM pg_proc WHERE oid = 'spanfold.trace_hex(text)'::regprocedure
    """
    assert connection.execute(query).fetchall() == [("i", "s", True)]


@pytest.fixture
def story(ledger: Ledger) -> Ledger:
    """A trace with an id of its own, another whose id is the first one's trace_hex, one that only logged, and an erased one."""
    twice = [TraceCreated(aggregate_id=each, service_name=each[:5], operation_name="o", start_time=NOW, **SAID)
             for each in (ORDER, "order-2", trace_hex("order-2"))]  # fmt: skip
    store = Store(installed(), CODEC)
    commit_records(ledger, store, [record(event, offset) for offset, event in enumerate(twice)])
    logged = LogRecorded(aggregate_id=LOGGED, trace_id=LOGGED, service_name="s", body="b", severity_number=9, **SAID)
    store.commit(ledger, store.prepare(replace(batch([record(logged)]), topic=LOGS)))
    ledger.execute("INSERT INTO spanfold_core.erased VALUES ('spanfold.traces', 0, %s, 9, now(), 1)", (ERASED,))
    return ledger


async def test_a_query_finds_a_trace_by_its_id_first(stack_settings: Settings, story: Ledger) -> None:
    async with query_bus(stack_settings) as bus:
        for asked, found in {
            ORDER: ORDER, trace_hex(ORDER): ORDER, trace_hex("order-2"): trace_hex("order-2"), HEX: None,
        }.items():  # fmt: skip
            trace = (await bus.ask(GetTrace(trace_id=asked))).result
            assert (trace and trace.id) == found


def test_operations_find_a_trace_by_its_id_first(stack_settings: Settings, story: Ledger) -> None:
    target = installation(stack_settings)
    for asked, found in {ORDER: ORDER, trace_hex(ORDER): ORDER, trace_hex("order-2"): trace_hex("order-2")}.items():
        assert read_trace(target, asked).trace["trace_id"] == found
        assert contents_to_erase(target, asked).trace_id == found
    for trace_id in (LOGGED, ERASED):
        assert contents_to_erase(target, trace_hex(trace_id)).trace_id == trace_id
    assert contents_to_erase(target, HEX, even_if_unknown=True).trace_id == HEX


@pytest.mark.parametrize(
    ("query", "parameter", "indexes"),
    [
        (WITH_TRACE_HEX, "hex_id", {"logs_trace_hex", "traces_trace_hex", "erased_trace_hex"}),
        (TRACE, "trace_id", {"traces_trace_hex", "traces_pkey"}),
    ],
)
def test_an_index_finds_it(ledger: Ledger, query: str, parameter: str, indexes: set[str]) -> None:
    ledger.execute("SET enable_seqscan = off")
    plan = "\n".join(line for (line,) in ledger.execute(f"EXPLAIN {query}".encode(), {parameter: HEX}))
    assert {index for index in indexes if f" {index} " in plan} == indexes, plan
