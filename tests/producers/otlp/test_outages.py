"""A Kafka that goes away and comes back, and a front door that is told to stop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from google.rpc.status_pb2 import Status

from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.producers.otlp.door import Door, Run, a_span, an_export, folded, url_of
from tests.support.databases import Ledger
from tests.support.victims import Servers
from tests.support.waiting import until

PROGRAMS: Final = Path(__file__).parent / "sdks"
SPANS: Final = 10_000
"""Of each SDK."""

TRACE_SPANS: Final = 10
OUTAGE_S: Final = 4.0
SDK_S: Final = 120
PATIENT: Final = {
    # the SDKs' public settings: a queue that holds all spans, and time for a request's retries
    "OTEL_BSP_MAX_QUEUE_SIZE": str(2 * SPANS),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}
TIMES: Final = {
    "python": {"OTEL_EXPORTER_OTLP_TIMEOUT": "60", "OTEL_BSP_EXPORT_TIMEOUT": "60000"},  # s, ms
    "javascript": {"OTEL_EXPORTER_OTLP_TIMEOUT": "60000", "OTEL_BSP_EXPORT_TIMEOUT": "60000"},  # ms
}


@pytest.fixture
def own_settings(victims: Servers, topic_prefix: str) -> Settings:
    """Topics and a database of this test on servers that may be stopped."""
    name = topic_prefix.rstrip(".")
    with psycopg.connect(victims.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    made = Settings(
        kafka_bootstrap=victims.bootstrap,
        postgres_dsn=victims.dsn(name),
        topic_prefix=topic_prefix,
        group=name,
    )
    lifecycle.prepare(victims.dsn(name), ensure_topics(made).values(), installed())
    return made


@pytest.fixture
def own_ledger(own_settings: Settings) -> Iterator[Ledger]:
    with psycopg.connect(str(own_settings.postgres_dsn), autocommit=True) as connection:
        yield connection


@pytest.fixture
def own_door(run: Run, own_settings: Settings) -> Door:
    command = run(own_settings, "otlp", "--port", "0")
    return Door(command, url_of(command))


def stop_kafka(servers: Servers) -> None:
    for broker in servers.brokers.values():
        broker.end(signal.SIGKILL)


def start_kafka(servers: Servers) -> None:
    for broker in servers.brokers.values():
        broker.start().await_ready()


def refused(door: Door) -> float:
    return door.metrics().get('spanfold_otlp_requests_total{status="503"}', 0)


def listens(door: Door) -> bool:
    try:
        httpx.get(f"{door.url}/metrics", timeout=10)
    except httpx.TransportError:
        return False
    return True


def events_in_the_log(settings: Settings) -> dict[str, int]:
    """Distinct events of the trace topic by type, as a plain consumer reads them."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test", "enable.partition.eof": True}
    )
    topic = TRACES.on_broker(settings.topic_prefix)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(settings.partitions)])
    found, ended = set(), 0
    while ended < settings.partitions:
        for message in consumer.consume(5000, 10):
            ended += message.error() is not None
            if message.error() is None:
                headers = dict(message.headers() or [])
                found.add((headers["event_type"], headers["event_id"]))
    consumer.close()
    return Counter(event_type.decode() for event_type, _ in found if isinstance(event_type, bytes))


def counts(ledger: Ledger) -> tuple[Any, ...]:
    """Rows of spans, distinct spans, traces, completed traces, and what those say of their spans."""
    query = """
        SELECT (SELECT count(*) FROM spanfold.spans), (SELECT count(DISTINCT (trace_id, span_id)) FROM spanfold.spans),
               count(*), count(*) FILTER (WHERE status = 'completed'), sum(span_count)::int
          FROM spanfold.traces
    """
    found = ledger.execute(query).fetchone()
    assert found
    return found


def test_while_kafka_is_away_senders_are_asked_to_try_again_and_all_goes_in_once(
    run: Run, victims: Servers, own_settings: Settings, own_ledger: Ledger, own_door: Door
) -> None:
    requests = [an_export(*(a_span(trace, number) for number in range(1, 6))) for trace in range(1, 21)]
    assert own_door.send(requests[0]).status_code == 200
    stop_kafka(victims)
    unwell = httpx.get(f"{own_door.url}/healthz", timeout=10)
    assert (unwell.status_code, unwell.json()["healthy"]) == (503, False)
    assert "does not answer" in unwell.json()["problems"][0]
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(own_door.send, requests))
    assert {each.status_code for each in answers} == {503}
    assert {each.headers["retry-after"] for each in answers} == {"2"}
    assert "not acknowledged" in Status.FromString(answers[0].content).message
    start_kafka(victims)

    def send_until_taken(request: dict[str, Any]) -> None:
        until(lambda: own_door.send(request).status_code == 200, "200")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send_until_taken, requests))
    assert httpx.get(f"{own_door.url}/healthz", timeout=10).status_code == 200
    worker = run(own_settings, "worker", "projector")
    until(lambda: counts(own_ledger)[2:4] == (20, 20), "20 traces", lambda: (counts(own_ledger), worker.output()))
    assert counts(own_ledger) == (100, 100, 20, 20, 100)


def test_told_to_stop_it_finishes_what_it_has_begun(
    run: Run, victims: Servers, own_settings: Settings, own_ledger: Ledger, own_door: Door
) -> None:
    for broker in victims.brokers.values():
        broker.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(own_door.send, an_export(a_span(1, 1), a_span(1, 2)))
            until(lambda: own_door.metrics()["spanfold_otlp_requests_in_flight"] == 1, "a request in flight")
            own_door.command.process.terminate()
            until(lambda: not listens(own_door), "a closed door")
            assert not answer.done()
            assert own_door.command.process.poll() is None
            for broker in victims.brokers.values():
                broker.send(signal.SIGCONT)
            assert answer.result(20).status_code == 200
    finally:
        for broker in victims.brokers.values():
            broker.send(signal.SIGCONT)
    assert own_door.command.process.wait() == 0
    folded(run, own_settings, own_ledger, 4)
    assert counts(own_ledger) == (2, 2, 1, 1, 2)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("sdk", ["python", "javascript"])
def test_an_unmodified_sdk_gets_every_span_in_once_though_kafka_stops_meanwhile(
    sdk: str, run: Run, victims: Servers, own_settings: Settings, own_ledger: Ledger, own_door: Door, tmp_path: Path
) -> None:
    command = sdk_command(sdk)
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": own_door.url, "OTEL_SERVICE_NAME": sdk, **PATIENT, **TIMES[sdk],
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.4.2,deployment.environment.name=live",
    }  # fmt: skip
    log = tmp_path / "sdk.log"
    with log.open("wb") as errors:
        program = subprocess.Popen(
            [*command, str(SPANS), str(TRACE_SPANS)],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    accepted = "spanfold_otlp_spans_accepted_total"
    until(lambda: own_door.metrics()[accepted] > 0, "the first spans", log.read_text)
    stop_kafka(victims)
    assert own_door.metrics()[accepted] < SPANS
    time.sleep(OUTAGE_S)
    until(lambda: refused(own_door) > 0, "an answer with 503")
    start_kafka(victims)
    out, _ = program.communicate(timeout=SDK_S)
    assert program.returncode == 0, log.read_text()
    said, traces = json.loads(out), SPANS // TRACE_SPANS
    assert said == {"spans": SPANS, "traces": traces}
    assert own_door.metrics()[accepted] == SPANS, log.read_text()
    in_the_log = events_in_the_log(own_settings)
    assert in_the_log == {"SpanRecorded": SPANS, "TraceCreated": traces, "TraceCompleted": traces}

    worker = run(own_settings, "worker", "projector")
    expected = (SPANS, SPANS, traces, traces, SPANS)
    until(lambda: counts(own_ledger) == expected, f"{expected}", lambda: (counts(own_ledger), worker.output()))
    assert own_ledger.execute(OF_THE_DEPLOYMENT, (sdk,)).fetchone() == (SPANS, traces)
    verdicts = dict(own_ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY verdict").fetchall())
    assert verdicts["accepted"] == SPANS + 2 * traces
    assert set(verdicts) <= {"accepted", "duplicate"}
    print(
        f"{sdk}: {said}, log: {dict(in_the_log)}, 503s: {refused(own_door):g}, verdicts: {verdicts}, rows: {counts(own_ledger)}"
    )


OF_THE_DEPLOYMENT: Final = """
SELECT count(*), count(*) FILTER (WHERE tags @> '{"lines": ["pen"]}')
  FROM spanfold.spans
 WHERE service_name = %s AND service_version = '1.4.2' AND environment = 'live' AND scope_name = 'shop'
"""


def sdk_command(sdk: str) -> Sequence[str | Path]:
    """How the SDK's program is started; JavaScript's packages are installed first, once."""
    if sdk == "python":
        return [sys.executable, PROGRAMS / "spans.py"]
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        pytest.skip("there is no node with npm on PATH: install Node.js 20 or newer to test the JavaScript SDK")
    home = Path(__file__).parents[3] / ".spanfold" / "otlp-javascript"
    home.mkdir(parents=True, exist_ok=True)
    package = (PROGRAMS / "package.json").read_text()
    done = home / "installed.json"
    if not done.exists() or done.read_text() != package:
        (home / "package.json").write_text(package)
        install = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([npm, *install], cwd=home, check=True, timeout=180)
        done.write_text(package)
    shutil.copy(PROGRAMS / "spans.mjs", home)
    return [node, home / "spans.mjs"]
