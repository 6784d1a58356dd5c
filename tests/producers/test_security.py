"""Both Kafka clients against a real broker that asks who they are: passwords in two mechanisms, TLS, and both at once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from spanfold.kafka.security import librdkafka_security, ssl_context
from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import LogUnavailable, Misconfigured
from spanfold.language.events import TraceCompleted
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.producers.secured import Secured, secured_kafka
from tests.support.commands import command
from tests.support.waiting import until
from tests.support.workers import Worker

WAYS = [
    ("SASL_PLAINTEXT", "PLAIN"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ("SSL", ""),
    ("SASL_SSL", "SCRAM-SHA-512"),
]

EVENT = TraceCompleted(aggregate_id="t-1", occurred_at=1_795_000_000_000_000, source="test", end_time=1)


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with secured_kafka() as kafka:
        yield kafka


@pytest.mark.usefixtures("forkserver")
@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
def test_what_is_published_over_a_secured_connection_is_folded_over_one(
    secured: Secured, postgres_dsn: str, topic_prefix: str, tmp_path: Path, protocol: str, mechanism: str
) -> None:
    own = {"postgres_dsn": postgres_dsn, "topic_prefix": topic_prefix, "group": topic_prefix, "home": tmp_path}
    given = secured.settings(protocol, mechanism) | own
    settings = Settings(**given)
    lifecycle.prepare(postgres_dsn, ensure_topics(settings).values(), installed())
    worker = Worker(settings, tmp_path)
    try:
        with TelemetryPublisher(settings) as publisher:
            publisher.publish_and_wait(EVENT)
        with psycopg.connect(postgres_dsn, autocommit=True) as ledger:
            query = "SELECT 1 FROM spanfold.traces WHERE trace_id = 't-1'"
            until(lambda: ledger.execute(query).fetchall(), "the event as a row", worker.output)
        assert worker.stop() == 0
    finally:
        worker.kill()


WRONG = [
    ("SASL_PLAINTEXT", "PLAIN", {"kafka_sasl_password": "wrong"}, "_PASSWORD. It said: .*Invalid username or password"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-256", {"kafka_sasl_username": "bob"}, "_USERNAME, .*invalid credentials"),
    ("SASL_SSL", "PLAIN", {"kafka_ssl_cafile": ""}, "_CAFILE. It said: .*certificate verify failed"),
    ("SSL", "", {"kafka_ssl_certfile": "", "kafka_ssl_keyfile": ""}, "_CAFILE. It said: .*(alert|certificate)"),
]


@pytest.mark.parametrize(("protocol", "mechanism", "changes", "complaint"), WRONG)
def test_a_client_that_kafka_refuses_is_told_what_to_check(
    secured: Secured, protocol: str, mechanism: str, changes: dict[str, str], complaint: str
) -> None:
    settings = Settings(**secured.settings(protocol, mechanism, **changes))
    began = time.monotonic()
    with pytest.raises(
        Misconfigured, match=rf"refuses this client: check SPANFOLD_KAFKA_SECURITY_PROTOCOL.*{complaint}"
    ):
        ensure_topics(settings, timeout_s=120)
    assert time.monotonic() - began < 30, "it waited for an answer that Kafka had given"
    with (
        TelemetryPublisher(settings, message_timeout_s=2) as publisher,
        pytest.raises(Misconfigured, match=r"refuses this client") as refusal,
    ):
        publisher.publish_and_wait(EVENT)
    assert "wrong" not in str(refusal.value)


@pytest.mark.usefixtures("forkserver")
def test_a_worker_with_a_wrong_password_ends_and_says_so(secured: Secured, postgres_dsn: str, tmp_path: Path) -> None:
    given = secured.settings("SASL_PLAINTEXT", "PLAIN", kafka_sasl_password="wrong")  # noqa: S106
    worker = command(Settings(**given, postgres_dsn=postgres_dsn, home=tmp_path), "worker", "projector")
    assert worker.returncode == Misconfigured.exit_code
    assert "SPANFOLD_KAFKA_SASL_PASSWORD" in worker.stderr


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_a_listener_of_another_kind_is_asked_about(secured: Secured, protocol: str) -> None:
    plain = Settings(kafka_bootstrap=secured.bootstraps[protocol])
    with pytest.raises(LogUnavailable, match="does it speak SPANFOLD_KAFKA_SECURITY_PROTOCOL=PLAINTEXT"):
        ensure_topics(plain, timeout_s=2)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"kafka_security_protocol": "SASL_SSL"},
            "needs SPANFOLD_KAFKA_SASL_MECHANISM, SPANFOLD_KAFKA_SASL_USERNAME, ",
        ),
        ({"kafka_sasl_username": "alice"}, "_USERNAME would not be used: .*=PLAINTEXT does not log in"),
        ({"kafka_ssl_cafile": "/ca.pem"}, "_CAFILE would not be used: .*=PLAINTEXT is not encrypted"),
        ({"kafka_security_protocol": "ssl", "kafka_ssl_cafile": "/no/ca.pem"}, "=/no/ca.pem: no such file"),
        (
            {"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": __file__},
            "_KEYFILE needs SPANFOLD_KAFKA_SSL_CERTFILE",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], complaint: str) -> None:
    for build in (librdkafka_security, ssl_context):
        with pytest.raises(Misconfigured, match=complaint):
            build(Settings(**given))


def test_a_file_that_holds_no_certificate_is_named() -> None:
    with pytest.raises(Misconfigured, match="SPANFOLD_KAFKA_SSL_CAFILE can't be used"):
        ssl_context(Settings(kafka_security_protocol="SSL", kafka_ssl_cafile=__file__))


def test_a_password_is_not_shown_with_the_settings() -> None:
    settings = Settings(kafka_sasl_password=SecretStr("s3cret"))
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()


def test_without_security_nothing_is_set() -> None:
    assert librdkafka_security(Settings()) == {}
    assert ssl_context(Settings()) is None


def test_a_broker_may_be_called_by_another_name() -> None:
    settings = Settings(kafka_security_protocol="SSL", kafka_ssl_check_hostname=False)
    context = ssl_context(settings)
    assert context
    assert context.check_hostname is False
    assert librdkafka_security(settings)["ssl.endpoint.identification.algorithm"] == "none"
