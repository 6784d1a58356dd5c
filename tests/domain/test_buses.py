"""Commands and queries on their buses."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest

from spanfold.application.aggregates import ChangeServiceHealth, RegisterService, ServiceAggregate, TraceAggregate
from spanfold.application.buses import CommandBus, QueryBus, retrying, timing, validate_with, validating
from spanfold.application.domain import InstanceStatus
from spanfold.application.event_store import ANY, Appended, Conflict, ExpectedVersion, OutcomeUnknown
from spanfold.application.execution import Executed, Retry, execute
from spanfold.application.in_memory import InMemoryEventStore
from spanfold.application.messages import Answer, Command, DomainCommand, Micros, Query, UnknownMessage, envelope_of
from spanfold.application.queries import QUERIES, Cursor, FindTraces, GetTrace, Page, TraceReadModel
from spanfold.language.errors import InvalidInput
from spanfold.language.events import DomainEvent
from spanfold.language.positions import Position, missing
from spanfold.language.topics import SERVICES

REGISTER = RegisterService(
    aggregate_id="cart-1", service_name="cart", host="h", port=80, health_check_url="http://h/health"
)
DATA = {"service_name": "cart", "host": "h", "port": 80, "health_check_url": "http://h/health"}
AT = 1_795_000_000_000_000


def bus(*middleware: Any, store: InMemoryEventStore | None = None) -> CommandBus:
    made = CommandBus(*middleware)
    for aggregate in (ServiceAggregate, TraceAggregate):
        made.register_aggregate(aggregate, store or InMemoryEventStore())
    return made


# One handler for each type


async def test_the_events_of_a_command_are_appended_to_the_store() -> None:
    store = InMemoryEventStore()
    done: Executed = await bus(store=store).send(REGISTER)
    history = await store.get_events(SERVICES, "cart-1")
    assert [(each.event, each.version, each.position) for each in history] == [(done.events[0], 1, done.position)]


async def test_a_command_that_nobody_handles_is_named_with_those_that_are() -> None:
    @dataclass(frozen=True, kw_only=True)
    class RegisterServise(DomainCommand):
        pass

    with pytest.raises(
        UnknownMessage, match=r"'RegisterServise' \(did you mean RegisterService\?\); handlers exist for AddSpan, "
    ):
        await bus().send(RegisterServise(aggregate_id="a"))
    with pytest.raises(UnknownMessage, match="the command 'Explode'; handlers exist for none"):
        await CommandBus().send(Command(command_type="Explode", aggregate_id="a"))


def test_a_second_handler_is_refused() -> None:
    async def handler(command: RegisterService) -> None: ...

    with pytest.raises(InvalidInput, match="RegisterService is already registered"):
        bus().register(RegisterService, handler)


# Envelopes


async def test_an_envelope_is_carried_out_like_the_command_itself() -> None:
    store = InMemoryEventStore()
    envelope = Command(command_type="RegisterService", aggregate_id="cart-1", command_data=DATA, timestamp=AT)
    done: Executed = await bus(store=store).send(envelope)
    assert (done.events[0].occurred_at, done.version) == (AT, 1)
    again: Executed = await bus(store=store).send(envelope)
    assert (again.events, again.version) == ((), 1)


async def test_a_command_comes_back_from_its_envelope_as_it_went() -> None:
    seen: list[DomainCommand] = []

    async def keep(command: DomainCommand) -> None:
        seen.append(command)

    for command in (REGISTER, ChangeServiceHealth(aggregate_id="cart-1", status=InstanceStatus.HEALTHY, reason="200")):
        keeping = CommandBus()
        keeping.register(type(command), keep)
        await keeping.send(envelope_of(command))
        assert seen.pop() == command


@dataclass(frozen=True, kw_only=True)
class Wait(DomainCommand):
    until: Micros


async def test_times_of_an_envelope_are_numbers_or_texts() -> None:
    async def answer(command: Wait) -> int:
        return command.until

    waiting = CommandBus()
    waiting.register(Wait, answer)
    for until in (AT, "2026-11-18T11:06:40Z"):
        assert await waiting.send(Command(command_type="Wait", aggregate_id="a", command_data={"until": until})) == AT
    with pytest.raises(InvalidInput, match="until: expected a time"):
        await waiting.send(Command(command_type="Wait", aggregate_id="a", command_data={"until": "soon"}))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({**DATA, "prot": 1}, r"RegisterService: unknown field 'prot' \(did you mean port\?\)"),
        ({**DATA, "attempt": 1}, "unknown field 'attempt'"),
        ({"host": "h"}, "RegisterService: missing service_name, port, health_check_url"),
        ({**DATA, "port": "eighty"}, "RegisterService: port: .*integer.*'eighty'"),
        ({**DATA, "status": "ill"}, "RegisterService: status: .*'starting', 'healthy'"),
    ],
)
async def test_what_is_wrong_with_an_envelope_is_named(data: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await bus().send(Command(command_type="RegisterService", aggregate_id="a", command_data=data))


# Middleware


async def test_what_cannot_be_kept_is_refused_before_the_handler() -> None:
    guarded = bus(validating, validate_with(lambda command: "no root" if command.source == "root" else None))
    for wrong, said in (
        ({"aggregate_id": "x" * 513}, "512"),
        ({"host": "a\0"}, "host"),
        ({"metadata": {"a": "\0"}}, "metadata.a"),
        ({"source": "root"}, "RegisterService: no root"),
    ):
        with pytest.raises(InvalidInput, match=said):
            await guarded.send(replace(REGISTER, **wrong))
    assert (await guarded.send(REGISTER)).version == 1


async def test_times_are_told_of_successes_and_failures() -> None:
    told: list[tuple[str, str]] = []
    timed = bus(timing(lambda name, seconds, outcome: told.append((name, outcome))))
    await timed.send(REGISTER)
    with pytest.raises(Exception, match="not registered"):
        await timed.send(ChangeServiceHealth(aggregate_id="nobody", status=InstanceStatus.HEALTHY))
    assert told == [("RegisterService", "ok"), ("ChangeServiceHealth", "CommandRefused")]


class Contended(InMemoryEventStore):
    """Before each of the first appends another one comes in between; after the verdict of some the answer is lost."""

    def __init__(self, conflicts: int, lost: int = 0) -> None:
        super().__init__()
        self.conflicts, self.lost = conflicts, lost
        self.ids: list[bytes] = []

    async def append_events(
        self, events: Any, expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        self.ids.append(events[0].event_id)
        if self.conflicts:
            self.conflicts -= 1
            other: DomainEvent = replace(events[0], event_id=bytes([self.conflicts]) * 16)
            await super().append_events([other])
        appended = await super().append_events(events, expected_version, batch_id=batch_id)
        if self.lost:
            self.lost -= 1
            raise OutcomeUnknown(SERVICES, "cart-1", events[0].event_id, 1.0)
        return appended


QUICK = Retry(attempts=4, longest_wait_s=0.01)


async def test_after_a_conflict_it_is_decided_again_and_appended_under_a_new_event_id() -> None:
    store = Contended(conflicts=3)
    done: Executed = await bus(retrying(QUICK), store=store).send(REGISTER)
    assert done.version == 4
    assert len(set(store.ids)) == 4


async def test_in_the_end_the_conflict_is_told() -> None:
    store = Contended(conflicts=4)
    with pytest.raises(Conflict, match="cart-1 is at"):
        await bus(retrying(QUICK), store=store).send(REGISTER)
    assert len(store.ids) == 4
    with pytest.raises(Conflict):
        await bus(store=Contended(conflicts=1)).send(REGISTER)


@pytest.mark.parametrize("conflicts", [0, 2])
async def test_an_unknown_outcome_is_known_once_the_command_is_sent_again(conflicts: int) -> None:
    store = Contended(conflicts=conflicts, lost=1)
    with pytest.raises(OutcomeUnknown, match="may or may not have been accepted") as lost:
        await execute(store, ServiceAggregate, REGISTER, QUICK)
    found = await store.outcome_of(SERVICES, "cart-1", lost.value.event_id)
    again = await execute(store, ServiceAggregate, REGISTER, QUICK)
    assert found
    assert (again.events, again.version, again.position) == ((), conflicts + 1, found.position)
    assert len((await store.get_events(SERVICES, "cart-1")).events) == conflicts + 1


# Queries

TRACE = TraceReadModel(
    id="t-1", service_name="cart", operation_name="GET", status="completed",
    start_time=AT, end_time=AT + 1_500, duration_us=1_500, tags={},
)  # fmt: skip
HERE = Position("spanfold.traces", 2, 41)


async def test_a_query_is_answered_with_the_positions_that_the_answer_reflects() -> None:
    async def get(query: GetTrace) -> Answer[TraceReadModel | None]:
        return Answer(TRACE if query.trace_id == "t-1" else None, query.at_least)

    queries = QueryBus(validating)
    queries.register(GetTrace, get)
    answer = await queries.ask(GetTrace(trace_id="t-1", at_least=(HERE,)))
    assert answer == Answer(TRACE, (HERE,))
    data = {"trace_id": "t-1", "at_least": [str(HERE)]}
    assert await queries.ask(Query(query_type="GetTrace", query_data=data)) == answer
    with pytest.raises(UnknownMessage, match=r"the query 'GetTraces' \(did you mean GetTrace\?\)"):
        await queries.ask(Query(query_type="GetTraces"))
    with pytest.raises(InvalidInput, match=r"spanfold.traces/2@41"):
        await queries.ask(Query(query_type="GetTrace", query_data={**data, "at_least": ["here"]}))


async def test_every_query_can_come_in_an_envelope() -> None:
    needed: dict[str, dict[str, Any]] = {
        "GetTrace": {"trace_id": "t"}, "GetMetricsByName": {"name": "m"}, "GetMetricSeries": {"series_id": "s"}
    }  # fmt: skip
    seen: list[Any] = []

    async def keep(query: Any) -> Answer[Any]:
        seen.append(query)
        return Answer(None)

    queries = QueryBus()
    for each in QUERIES:
        queries.register(each, keep)
        data = needed.get(each.__name__, {})
        await queries.ask(Query(query_type=each.__name__, query_data=data))
        assert seen.pop() == each(**data)
    await queries.ask(
        Query(query_type="FindTraces", query_data={"tags": {"n": 1}, "start_from": "2026-11-18T11:06:40Z"})
    )
    assert seen.pop() == FindTraces(tags={"n": 1}, start_from=AT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0}, {"limit": 1001}, {"start_from": 5, "start_before": 5}, {"cursor": "nonsense"},
        {"min_duration_us": 6, "max_duration_us": 5}, {"cursor": Page((), None).items},
    ],
)  # fmt: skip
def test_a_question_without_an_answer_is_refused(wrong: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        FindTraces(**wrong)


def test_a_range_of_one_duration_is_not_empty() -> None:
    assert FindTraces(min_duration_us=5, max_duration_us=5).min_duration_us == 5


@pytest.mark.parametrize("start", [None, 0, AT])
def test_a_cursor_is_a_text_that_comes_back(start: int | None) -> None:
    cursor = Cursor(start, "trace/ü")
    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).replace("-", "").replace("_", "").isalnum()


def test_a_read_model_has_times_as_python_has_them() -> None:
    assert TRACE.duration
    assert TRACE.started_at
    assert TRACE.duration.total_seconds() == 0.0015
    assert TRACE.started_at.isoformat() == "2026-11-18T11:06:40+00:00"
    assert asdict(TRACE)["duration_us"] == 1_500


def test_what_is_missing_is_what_lies_beyond() -> None:
    beyond, elsewhere = replace(HERE, offset=42), replace(HERE, partition=3, offset=0)
    assert Position.parse(str(HERE)) == HERE
    assert missing([HERE], [HERE]) == missing([HERE], [beyond]) == ()
    assert missing([beyond, elsewhere], [HERE]) == (beyond, elsewhere)
