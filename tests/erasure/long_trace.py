"""A trace through several services, amid others, that is to be erased, and whether anything of it is left."""

import random
import subprocess
import time
from typing import Any

from spanfold.embedded.postgres import wheel_folder
from spanfold.language.events import DomainEvent, LogRecorded, SpanRecorded, TraceCompleted, TraceCreated
from spanfold.language.settings import Settings
from tests.support.commands import json_of
from tests.support.databases import Ledger
from tests.support.erasure import tables_with
from tests.support.load import events
from tests.support.publishing import publish_all

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOW = time.time_ns() // 1000


def story() -> list[DomainEvent]:
    """A trace through services that other traces go through too, with errors that were logged in it."""
    said: dict[str, Any] = {"aggregate_id": TRACE, "source": "test"}
    spans = [
        SpanRecorded(
            occurred_at=NOW + 900 + at, span_id=f"{at}", parent_span_id=f"{at - 1}" if at else None, start_time=NOW + at,
            end_time=NOW + 900 + at, service_name=("shop", "bank", "post")[at % 3], operation_name="pay",
            status="error" if at % 2 else "ok", tags={"card": "4711"}, **said,
        )
        for at in range(12)
    ]  # fmt: skip
    errors = [
        LogRecorded(occurred_at=NOW + at, service_name="shop", body="no", severity_number=17, trace_id=TRACE, **said)
        for at in range(3)
    ]
    created = TraceCreated(occurred_at=NOW, service_name="shop", operation_name="pay", start_time=NOW, **said)
    return [created, *spans, *errors, TraceCompleted(occurred_at=NOW + 950, end_time=NOW + 950, **said)]


def publish(settings: Settings, *published: DomainEvent) -> None:
    publish_all(settings, published)


def others(count: int, seed: int) -> list[DomainEvent]:
    source = events(random.Random(seed), NOW)
    return [next(source) for _ in range(count)]


def dumped(settings: Settings) -> str:
    """The database as text, but for the rows that say who was erased."""
    pg_dump = [str(wheel_folder() / "bin" / "pg_dump"), "--exclude-table-data=spanfold_core.erased"]
    done = subprocess.run([*pg_dump, str(settings.postgres_dsn)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def done(settings: Settings, *words: str) -> Any:
    return json_of(settings, *words)


def assert_nowhere(settings: Settings, ledger: Ledger) -> None:
    assert tables_with(ledger, TRACE) == []
    text = dumped(settings)
    assert TRACE not in text
    assert TRACE.encode().hex() not in text
