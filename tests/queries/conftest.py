"""A stack with a worker, and a bus that asks it."""

from collections.abc import AsyncIterator

import pytest

from spanfold.application.buses import QueryBus
from spanfold.bootstrap import query_bus
from spanfold.language.settings import Settings
from tests.support.databases import Ledger
from tests.support.workers import Start, Worker


@pytest.fixture
def worker(start: Start, ledger: Ledger) -> Worker:
    return start()


@pytest.fixture
async def bus(stack_settings: Settings, ledger: Ledger) -> AsyncIterator[QueryBus]:
    async with query_bus(stack_settings, wait_s=60) as bus:
        yield bus
