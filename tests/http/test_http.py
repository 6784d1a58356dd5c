"""Commands and queries over HTTP, in front of an event store in memory and of a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from spanfold.application.buses import QueryBus
from spanfold.application.event_store import ANY, Appended, Conflict, ExpectedVersion, HeldUp, OutcomeUnknown, Rejected
from spanfold.application.in_memory import InMemoryEventStore
from spanfold.application.messages import Answer, NotYetReflected
from spanfold.application.queries import GetTrace, TraceReadModel
from spanfold.bootstrap import command_bus
from spanfold.http import body_limits
from spanfold.http.api import api_app
from spanfold.http.api_metrics import ApiMetrics
from spanfold.http.body_limits import MAX_COMMAND_BYTES
from spanfold.language.errors import LogUnavailable
from spanfold.language.positions import Position
from spanfold.language.topics import SERVICES

AT = 1_795_000_000_000_000
REGISTER = {"service_name": "cart", "host": "h", "port": 80, "health_check_url": "http://h/health"}
HERE = Position("spanfold.traces", 2, 41)


class Failing(InMemoryEventStore):
    """An event store whose next append fails so."""

    error: Exception | None = None

    async def append_events(
        self, events: Any, expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        if self.error:
            raise self.error
        return await super().append_events(events, expected_version, batch_id=batch_id)


@pytest.fixture
def store() -> Failing:
    return Failing()


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
async def door(store: Failing, problems: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    async def get(query: GetTrace) -> Answer[TraceReadModel | None]:
        if query.at_least:
            raise NotYetReflected(query.at_least, 1.0)
        trace = TraceReadModel(
            id=query.trace_id, service_name="cart", operation_name=None, status="started", start_time=AT,
            end_time=None, duration_us=None, tags={"a": [1, float("nan")]},
        )  # fmt: skip
        return Answer(trace, (HERE,))

    async def found() -> list[str]:
        return problems

    metrics, queries = ApiMetrics(), QueryBus()
    queries.register(GetTrace, get)
    app = api_app(command_bus(store, metrics.observing("command")), queries, found, metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://door") as client:
        yield client


def command(**said: Any) -> dict[str, Any]:
    return {"command_type": "RegisterService", "aggregate_id": "cart-1", "command_data": REGISTER, **said}


async def test_a_command_is_carried_out_and_told_where_it_lies(door: httpx.AsyncClient) -> None:
    answer = await door.post("/commands", json=command(command_id="c-1", timestamp="2026-11-18T11:06:40Z"))
    assert answer.status_code == 200
    said = answer.json()
    (event,) = said.pop("events")
    assert said == {"command_id": "c-1", "version": 1, "position": "spanfold.services/0@0"}
    assert (event["event_type"], event["occurred_at"]) == ("ServiceRegistered", AT)
    assert event["event_data"] == {**REGISTER, "metadata": {}, "status": "starting"}


async def test_a_command_sent_again_happens_once(door: httpx.AsyncClient, store: Failing) -> None:
    first = (await door.post("/commands", json=command(command_id="c-1"))).json()
    again = (await door.post("/commands", json=command(command_id="c-1"))).json()
    assert again == {**first, "events": []}
    assert len((await store.get_events(SERVICES, "cart-1")).events) == 1


async def test_a_query_is_answered_with_what_it_reflects(door: httpx.AsyncClient) -> None:
    query = {"query_type": "GetTrace", "query_id": "q-1", "query_data": {"trace_id": "t-1"}}
    said = (await door.post("/queries", json=query)).json()
    assert (said["query_id"], said["reflects"]) == ("q-1", ["spanfold.traces/2@41"])
    assert said["result"]["start_time"] == AT
    assert said["result"]["tags"] == {"a": [1, "NaN"]}
    assert said["result"]["end_time"] is None


UNKNOWN = OutcomeUnknown(SERVICES, "cart-1", b"\1" * 16, 30)
EVENT_ID = "01010101-0101-0101-0101-010101010101"


@pytest.mark.parametrize(
    ("error", "status", "more"),
    [
        (UNKNOWN, 503, {"event_id": EVENT_ID, "topic": "spanfold.services", "aggregate_id": "cart-1"}),
        (LogUnavailable("Kafka is away"), 503, {"title": "LogUnavailable"}),
        (Conflict("cart-1", 3, 5), 409, {"expected": 3, "actual": 5}),
        (Rejected("expired", "too old"), 422, {"verdict": "expired"}),
        (HeldUp("cart-1", HERE, 3, "unreadable"), 500, {"position": str(HERE)}),
    ],
)
async def test_what_the_store_says_is_told(
    door: httpx.AsyncClient, store: Failing, error: Exception, status: int, more: dict[str, Any]
) -> None:
    store.error = error
    answer = await door.post("/commands", json=command())
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (status == 503)
    said = answer.json()
    assert said["status"] == status
    assert said["detail"] == str(error)
    assert said.items() >= more.items()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/commands", command(command_type="RegisterServise"), 404, "did you mean RegisterService?"),
        ("/queries", {"query_type": "GetTraces"}, 404, "did you mean GetTrace?"),
        ("/commands", command(comand_id="c-1"), 422, "unknown field 'comand_id' (did you mean command_id?)"),
        ("/commands", {"command_type": "RegisterService"}, 422, "Command: missing aggregate_id"),
        ("/commands", command(command_data={**REGISTER, "port": "x"}), 422, "RegisterService: port:"),
        ("/commands", command(command_data={**REGISTER, "prot": 1}), 422, "did you mean port?"),
        ("/commands", command(timestamp="soon"), 422, "timestamp: expected a time"),
        ("/commands", command(aggregate_id="x" * 513), 422, "512"),
        ("/commands", command(command_type="ChangeServiceHealth", command_data={"status": "healthy"}), 409,
         "register it first"),
        ("/queries", {"query_type": "GetTrace"}, 422, "GetTrace: missing trace_id"),
        ("/queries", {"query_type": "GetTrace", "query_data": {"trace_id": "t", "at_least": ["x"]}}, 422, "position 'x'"),
        ("/queries", {"query_type": "GetTrace", "query_data": {"trace_id": "t", "at_least": [str(HERE)]}}, 503,
         "did not reach spanfold.traces/2@41"),
        ("/commands", [], 400, "no JSON object"),
        ("/elsewhere", {}, 404, "POST /commands"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told(door: httpx.AsyncClient, path: str, body: Any, status: int, said: str) -> None:
    answer = await door.post(path, json=body)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert said in answer.json()["detail"]


async def test_the_types_that_are_handled_are_listed(door: httpx.AsyncClient) -> None:
    known = (await door.post("/commands", json=command(command_type="Explode"))).json()["known"]
    assert {"StartTrace", "CompleteTrace", "RegisterService"} <= set(known)
    assert (await door.post("/queries", json={"query_type": "Explode"})).json()["known"] == ["GetTrace"]


async def test_a_body_that_cannot_be_read_is_told_so(door: httpx.AsyncClient) -> None:
    assert (await door.post("/commands", content=b"{")).status_code == 400
    assert (await door.post("/queries", content=b" " * (MAX_COMMAND_BYTES + 1))).status_code == 413
    assert (await door.get("/commands")).status_code == 405


async def test_a_body_that_does_not_arrive_in_time_is_refused(
    door: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limits, "BODY_TIMEOUT_S", 0.1)

    async def stalling() -> AsyncIterator[bytes]:
        yield b'{"query_type":'
        await asyncio.sleep(10)

    answer = await door.post("/queries", content=stalling())
    assert (answer.status_code, answer.json()["title"]) == (408, "BodyTooSlow")


async def test_health_and_metrics_tell_how_it_is(door: httpx.AsyncClient, problems: list[str]) -> None:
    assert (await door.get("/healthz")).json()["healthy"]
    problems.append("Postgres is away")
    ill = await door.get("/healthz")
    assert (ill.status_code, ill.json()["problems"]) == (503, problems)
    await door.post("/commands", json=command(command_type="ChangeServiceHealth", command_data={"status": "healthy"}))
    counted = (await door.get("/metrics")).text
    labels = 'kind="command",outcome="CommandRefused",type="ChangeServiceHealth"'
    assert f"spanfold_api_message_duration_seconds_count{{{labels}}} 1.0" in counted
