"""`spanfold api` on a real Kafka and Postgres."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from spanfold.language.settings import Settings
from tests.support.api import api_process
from tests.support.workers import Start

pytestmark = pytest.mark.timeout(600)


def register(instance: str, **said: Any) -> dict[str, Any]:
    data = {"service_name": "cart", "host": "h", "port": 80, "health_check_url": "http://h/health"}
    return {"command_type": "RegisterService", "aggregate_id": instance, "command_data": data, **said}


async def test_one_command_after_the_other_and_what_they_lead_to(api: str) -> None:
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        assert (await client.get("/healthz")).json()["problems"] == []
        first = await client.post("/commands", json=register("cart-1", command_id="c-1"))
        assert first.status_code == 200, first.text
        again = await client.post("/commands", json=register("cart-1", command_id="c-1"))
        assert again.json() == {**first.json(), "events": []}
        gone = {"command_type": "DeregisterService", "aggregate_id": "cart-1"}
        assert (await client.post("/commands", json=gone)).json()["version"] == 2
        refused = await client.post("/commands", json={**gone, "command_type": "ChangeServiceHealth",
                                                       "command_data": {"status": "healthy"}})  # fmt: skip
        assert (refused.status_code, refused.json()["title"]) == (409, "CommandRefused")


async def test_a_trace_that_was_commanded_can_be_asked_for_at_once(api: str) -> None:
    now = time.time_ns() // 1000
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        for number in range(5):
            data = {"service_name": "shop", "operation_name": "pay", "start_time": now}
            command = {"command_type": "StartTrace", "aggregate_id": f"t-{number}", "command_data": data}
            written = (await client.post("/commands", json=command)).json()
            query = {
                "query_type": "GetTrace",
                "query_data": {"trace_id": f"t-{number}", "at_least": [written["position"]]},
            }
            answer = (await client.post("/queries", json=query)).json()
            assert (answer["result"]["id"], answer["result"]["start_time"]) == (f"t-{number}", now)
        counted = (await client.get("/metrics")).text
        assert 'spanfold_api_message_duration_seconds_count{kind="query",outcome="ok",type="GetTrace"} 5.0' in counted


async def test_what_postgres_cannot_look_for_is_the_callers_mistake(api: str) -> None:
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        asked = {"query_type": "GetTrace", "query_data": {"trace_id": "a\0"}}
        answer = await client.post("/queries", json=asked)
        assert (answer.status_code, answer.json()["title"]) == (422, "InvalidInput"), answer.text
        assert "NUL" in answer.json()["detail"]


async def test_an_outcome_that_is_unknown_is_known_when_the_command_is_sent_again(
    stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start, tmp_path: Path
) -> None:
    with api_process(stack_settings, tmp_path) as url:
        async with httpx.AsyncClient(base_url=url, timeout=100) as client:
            # nobody judges
            unknown = await client.post("/commands", json=register("cart-3", command_id="c-3"))
            assert (unknown.status_code, unknown.json()["title"]) == (503, "OutcomeUnknown"), unknown.text
            assert unknown.headers["retry-after"]
            start()
            again = await client.post("/commands", json=register("cart-3", command_id="c-3"))
            assert again.json()["version"] == 1, again.text
            event = ledger.execute(
                "SELECT event_id::text FROM spanfold.journal WHERE aggregate_id = 'cart-3'"
            ).fetchall()
            assert event == [(unknown.json()["event_id"],)]


async def test_many_at_once_conflict_and_all_get_through(api: str) -> None:
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        answers = await asyncio.gather(*(client.post("/commands", json=register("cart-2")) for _ in range(6)))
        assert [each.status_code for each in answers] == [200] * 6, [each.text for each in answers]
        assert sorted(each.json()["version"] for each in answers) == [1, 2, 3, 4, 5, 6]
