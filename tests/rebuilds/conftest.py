"""A worker that has something folded, for the tests of rebuilds."""

import pytest

from spanfold.language.settings import Settings
from tests.support.databases import Ledger
from tests.support.publishing import publish
from tests.support.workers import Start, Worker, folded


@pytest.fixture
def folding(stack_settings: Settings, ledger: Ledger, start: Start) -> Worker:
    """A worker, and a first load that it has folded."""
    worker = start()
    publish(stack_settings, 3000)
    folded(ledger, stack_settings, worker)
    return worker
