"""What every TelemetryRepository does. A subclass named Test… gives the fixture `repository`, which may hold other traces."""

import uuid
from dataclasses import replace

from spanfold.application.domain import ServiceId, Span, SpanId, Trace, TraceId, TraceStatus
from spanfold.application.ports import TelemetryRepository
from spanfold.language.times import now_us


def trace(service: str = "cart", start: int | None = None) -> Trace:
    return Trace(
        id=TraceId.new(),
        service_id=ServiceId(service),
        operation_name="GET /cart",
        start=start or now_us() - 5_000_000,
        tags={"customer": "c-12", "items": 3, "vip": True, "share": 0.5, "labels": ["a", "b"]},
    )


def span(of: Trace, service: str | None = None, kind: str = "internal", span_id: SpanId | None = None) -> Span:
    return Span(
        id=span_id or SpanId.new(),
        operation_name="SELECT",
        start=of.start + 10,
        end=of.start + 20,
        service_id=ServiceId(service) if service else None,
        kind=kind,
        tags={"rows": 7},
    )


class TelemetryRepositoryContract:
    async def test_a_trace_comes_back_as_it_was_saved(self, repository: TelemetryRepository) -> None:
        started = trace()
        await repository.save_trace(started)
        assert await repository.get_trace(started.id) == started
        ended = started.complete(started.start + 1_000, {"cached": False})
        await repository.save_trace(ended)
        assert await repository.get_trace(started.id) == ended

    async def test_a_failed_trace_says_why(self, repository: TelemetryRepository) -> None:
        failed = trace().fail("timeout", now_us())
        await repository.save_trace(failed)
        found = await repository.get_trace(failed.id)
        assert found
        assert (found.status, found.error) == (TraceStatus.FAILED, "timeout")

    async def test_a_trace_may_have_ended_in_a_way_of_its_own(self, repository: TelemetryRepository) -> None:
        cancelled = trace()
        cancelled = cancelled.complete(cancelled.start, status="cancelled")
        await repository.save_trace(cancelled)
        assert await repository.get_trace(cancelled.id) == cancelled

    async def test_spans_come_back_by_their_start(self, repository: TelemetryRepository) -> None:
        whole = trace()
        late = replace(span(whole), start=whole.start + 15)
        await repository.save_trace(whole.add_span(late).add_span(span(whole, "payments", "server")))
        found = await repository.get_trace(whole.id)
        assert found
        assert [(each.start, each.service_id, each.kind) for each in found.spans] == [
            (whole.start + 10, "payments", "server"),
            (whole.start + 15, "cart", "internal"),
        ]
        assert [each.tags for each in found.spans] == [{"rows": 7}, {"rows": 7}]

    async def test_two_halves_of_a_span_are_two_spans(self, repository: TelemetryRepository) -> None:
        whole, shared = trace(), SpanId.new()
        client, server = span(whole, "cart", "client", shared), span(whole, "payments", "server", shared)
        await repository.save_trace(whole.add_span(client).add_span(server))
        found = await repository.get_trace(whole.id)
        assert found
        assert {each.kind for each in found.spans} == {"client", "server"}

    async def test_what_was_loaded_is_saved_again_without_a_change(self, repository: TelemetryRepository) -> None:
        saved = trace()
        saved = saved.add_span(span(saved, "payments", "server")).fail("no", now_us())
        await repository.save_trace(saved)
        loaded = await repository.get_trace(saved.id)
        assert loaded
        await repository.save_trace(loaded)
        await repository.save_trace(saved)
        assert await repository.get_trace(saved.id) == loaded

    async def test_saving_takes_nothing_away(self, repository: TelemetryRepository) -> None:
        seen_by_both = trace()
        await repository.save_trace(seen_by_both)
        one, other = span(seen_by_both), span(seen_by_both)
        await repository.save_trace(seen_by_both.add_span(one))
        await repository.save_trace(seen_by_both.add_span(other))
        found = await repository.get_trace(seen_by_both.id)
        assert found
        assert {each.id for each in found.spans} == {one.id, other.id}

    async def test_a_trace_that_nobody_saved_is_none(self, repository: TelemetryRepository) -> None:
        assert await repository.get_trace(TraceId.new()) is None

    async def test_traces_of_a_service_come_the_latest_first(self, repository: TelemetryRepository) -> None:
        service, at = uuid.uuid4().hex, now_us() - 10_000_000
        saved = [trace(service, at + offset) for offset in (0, 2_000, 1_000)]
        for each in [*saved, trace(uuid.uuid4().hex)]:
            await repository.save_trace(each)
        found = await repository.get_traces_by_service(ServiceId(service))
        assert found == [saved[1], saved[2], saved[0]]
        assert await repository.get_traces_by_service(ServiceId(service), limit=1) == [saved[1]]
        assert await repository.get_traces_by_service(ServiceId(uuid.uuid4().hex)) == []
