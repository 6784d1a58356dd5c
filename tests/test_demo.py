"""The demo's real program: three processes, real HTTP, the real SDK, the real log, the real tables."""

import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console

from spanfold.demo.processes import running_shop
from spanfold.demo.report import read_report, show_report, waterfall_line
from spanfold.demo.run import run_demo
from spanfold.errors import LogUnavailable
from spanfold.settings import Settings


@pytest.fixture
def projector(ledger: psycopg.Connection[Any], stack_settings: Settings, tmp_path: Path) -> Iterator[None]:
    environment = {
        "SPANFOLD_KAFKA_BOOTSTRAP": str(stack_settings.kafka_bootstrap),
        "SPANFOLD_POSTGRES_DSN": str(stack_settings.postgres_dsn),
        "SPANFOLD_TOPIC_PREFIX": stack_settings.topic_prefix,
        "SPANFOLD_GROUP": stack_settings.group,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    argv = [sys.executable, "-m", "spanfold", "worker", "projector"]
    process = subprocess.Popen(argv, env=os.environ | environment, cwd=tmp_path)
    yield
    process.terminate()
    assert process.wait(30) == 0


def test_every_span_of_the_shop_is_in_the_log_once_and_in_postgres_once(
    stack_settings: Settings, projector: None
) -> None:
    outcome = run_demo(stack_settings, Console(file=StringIO()), seconds=60, spans=1500)
    assert outcome.differences() == []
    assert outcome.spans_made == outcome.records["SpanRecorded"] == outcome.report.counts["spans"] >= 1500
    assert outcome.report.counts["traces"] == outcome.served.requests
    broken = outcome.served.answers[502]
    assert outcome.report.counts["failed"] == broken

    shown = StringIO()
    show_report(Console(file=shown, width=160), outcome.report)
    assert "storefront POST /checkout" in shown.getvalue()
    crossing = {span["service_name"] for trace in outcome.report.slowest for span in trace["spans"]}
    assert len(crossing) >= 2
    assert all(trace["span_count"] == len(trace["spans"]) for trace in outcome.report.slowest)
    assert read_report(str(stack_settings.postgres_dsn), "another run").counts["spans"] == 0


def test_the_demo_does_not_claim_what_did_not_reach_kafka(stack_settings: Settings) -> None:
    nowhere = stack_settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(LogUnavailable):
        run_demo(nowhere, Console(file=StringIO()), seconds=1, spans=None)


def test_a_shop_ends_with_its_block(stack_settings: Settings) -> None:
    with running_shop(stack_settings, "run") as shop:
        counts = shop.telemetry()
    assert counts.keys() == {"storefront", "inventory", "payments"}
    assert all(each["spans"] == 0 for each in counts.values())


def test_a_waterfall_line_keeps_bars_within_the_whole() -> None:
    span = {"depth": 1, "service_name": "shop", "operation_name": "x" * 80, "status": "error"}
    line = waterfall_line({**span, "offset_ms": 99.9, "duration_ms": 50.0}, 100.0).plain
    assert line.count("━") == 1
    assert line.endswith("50.0 ms")
    assert "…" in line
