"""The demo's real program: three processes, real HTTP, the real SDK, the real log, the real tables."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from spanfold.cli.demo_report import plot_line, print_report
from spanfold.demo.processes import running_shop
from spanfold.demo.report import read_report
from spanfold.demo.run import run_demo
from spanfold.language.errors import LogUnavailable
from spanfold.language.progress import NO_PROGRESS
from spanfold.language.settings import Settings
from tests.support.databases import Ledger
from tests.support.workers import Start


@pytest.fixture
def projector(ledger: Ledger, start: Start) -> Iterator[None]:
    worker = start()
    yield
    assert worker.stop() in {0, -signal.SIGTERM}  # the latter when it was told before it could listen


def test_every_span_of_the_shop_is_in_the_log_once_and_in_postgres_once(
    stack_settings: Settings, projector: None
) -> None:
    outcome = run_demo(stack_settings, NO_PROGRESS, seconds=60, spans=1500)
    assert outcome.differences() == []
    assert outcome.spans_made == outcome.records["SpanRecorded"] == outcome.report.counts["spans"] >= 1500
    assert outcome.report.counts["traces"] == outcome.served.requests
    broken = outcome.served.answers[502]
    assert outcome.report.counts["failed"] == broken
    assert outcome.points == outcome.report.counts["points"] > 10
    assert outcome.errors == outcome.report.counts["errors"] == 2 * broken
    assert sum(row["requests"] for row in outcome.report.requests) == outcome.served.requests

    shown = StringIO()
    print_report(Console(file=shown, width=160), outcome.report)
    assert "storefront POST /checkout" in shown.getvalue()
    assert shown.getvalue().count("█") > len(outcome.report.requests) > 0
    assert ("CardNetworkUnreachable" in shown.getvalue()) == (broken > 0)
    crossing = {span["service_name"] for trace in outcome.report.slowest for span in trace["spans"]}
    assert len(crossing) >= 2
    assert all(trace["span_count"] == len(trace["spans"]) for trace in outcome.report.slowest)
    nothing = read_report(str(stack_settings.postgres_dsn), "another run")
    assert set(nothing.counts.values()) == {0}
    assert nothing.requests == nothing.errors == []


def test_the_demo_does_not_claim_what_did_not_reach_kafka(stack_settings: Settings) -> None:
    nowhere = stack_settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(LogUnavailable):
        run_demo(nowhere, NO_PROGRESS, seconds=1, spans=None)


@pytest.mark.usefixtures("topics")
def test_a_shop_ends_with_its_block(stack_settings: Settings) -> None:
    with running_shop(stack_settings, "run") as shop:
        counts = shop.telemetry()
    assert counts.keys() == {"storefront", "inventory", "payments"}
    assert all(each["spans"] == 0 for each in counts.values())


def test_a_plot_line_is_as_long_as_its_share() -> None:
    at = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
    lines = [plot_line({"at": at, "requests": count, "mean_ms": 3.25}, 80).plain for count in (80, 20, 1)]
    assert [line.count("█") for line in lines] == [40, 10, 1]
    assert lines[0].startswith("  07:00:00  ")
    assert lines[1].endswith("    20      3.2 ms")
    assert len({len(line) for line in lines}) == 1
