"""The repository on Kafka and Postgres keeps its port's contract, and a rebuild of the read models changes no trace."""

import pytest

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.adapters.telemetry_repository import KafkaTelemetryRepository
from spanfold.application.domain import ServiceId
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.contracts.telemetry_repository import TelemetryRepositoryContract, span, trace
from tests.support.databases import Ledger
from tests.support.generations import at_work, states


@pytest.fixture
async def repository(store: KafkaEventStore) -> KafkaTelemetryRepository:
    return KafkaTelemetryRepository(store, timeout_s=60)


class TestKafkaTelemetryRepository(TelemetryRepositoryContract):
    @pytest.fixture
    def repository(self, shared_store: KafkaEventStore) -> KafkaTelemetryRepository:
        return KafkaTelemetryRepository(shared_store, timeout_s=60)


async def test_a_saved_trace_is_the_same_after_a_rebuild(
    repository: KafkaTelemetryRepository, stack_settings: Settings, ledger: Ledger
) -> None:
    saved = trace("rebuilt")
    saved = saved.add_span(span(saved)).add_span(span(saved, "payments", "server")).fail("no", now_us())
    open_one = trace("rebuilt", saved.start + 1)
    for each in (saved, open_one):
        await repository.save_trace(each)
    before = await repository.get_traces_by_service(ServiceId("rebuilt"))
    with at_work(stack_settings, "traces") as context:
        assert all(each.equal for each in rebuilding.rebuild(context, 1).parity)
    assert ("traces", 2, "live") in states(ledger)
    assert await repository.get_traces_by_service(ServiceId("rebuilt")) == before
    assert {each.id for each in before} == {saved.id, open_one.id}
    found = await repository.get_trace(saved.id)
    assert found
    assert found.all_tags == saved.all_tags
    assert {each.id for each in found.spans} == {each.id for each in saved.spans}
    # what is saved from now on is seen through the new generation
    ended = open_one.complete(now_us())
    await repository.save_trace(ended)
    assert await repository.get_trace(open_one.id) == ended
