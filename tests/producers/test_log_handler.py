"""The standard library's logging, publishing through a real Kafka."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from spanfold.producers.attributes import LONGEST_TEXT
from spanfold.producers.log_handler import SpanfoldLogHandler
from spanfold.producers.publisher import TelemetryPublisher

Errors = Callable[[int], list[dict[str, Any]]]


class CardDeclined(Exception):
    pass


@pytest.fixture
def log(publisher: TelemetryPublisher) -> Iterator[logging.Logger]:
    logger, handler = logging.getLogger("shop.payments"), SpanfoldLogHandler(publisher, service_name="payments")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


@pytest.fixture
def flushed(publisher: TelemetryPublisher, errors: Errors) -> Errors:
    def read(expected: int) -> list[dict[str, Any]]:
        assert publisher.flush() == 0
        return errors(expected)

    return read


def test_an_exception_is_told_with_its_stack_and_its_span(log: logging.Logger, flushed: Errors) -> None:
    tracer = TracerProvider().get_tracer("test")
    before = time.time_ns() // 1000
    with tracer.start_as_current_span("charge") as span:
        try:
            raise CardDeclined("no funds")
        except CardDeclined:
            log.exception("charge %s failed", 17, extra={"amount": 12.5, "card": {"last": "4242"}})
    (event,) = flushed(1)
    context = span.get_span_context()
    assert event["aggregate_id"] == event["trace_id"] == f"{context.trace_id:032x}"
    assert event["span_id"] == f"{context.span_id:016x}"
    assert (event["message"], event["severity"], event["logger"]) == ("charge 17 failed", "ERROR", "shop.payments")
    assert event["exception_type"].endswith("test_log_handler.CardDeclined")
    assert event["exception_message"] == "no funds"
    assert event["stacktrace"].startswith("Traceback (most recent call last)")
    assert event["stacktrace"].rstrip().endswith("CardDeclined: no funds")
    assert event["service_name"] == event["source"] == "payments"
    assert before - 1000 <= event["occurred_at"] <= time.time_ns() // 1000
    assert event["tags"]["amount"] == 12.5
    assert event["tags"]["card"] == '{"last": "4242"}'
    assert event["tags"]["code.file.path"] == __file__
    assert event["tags"]["code.function.name"] == "test_an_exception_is_told_with_its_stack_and_its_span"
    assert set(event["tags"]) == {"amount", "card", "code.file.path", "code.function.name", "code.line.number"}


def test_without_a_span_the_service_is_the_aggregate(log: logging.Logger, flushed: Errors) -> None:
    log.critical("the ledger is gone")
    log.warning("not an error")
    (event,) = flushed(1)
    assert (event["aggregate_id"], event["trace_id"], event["span_id"]) == ("payments", None, None)
    assert (event["severity"], event["exception_type"], event["stacktrace"]) == ("FATAL", None, None)


def test_the_level_is_the_handlers(log: logging.Logger, flushed: Errors) -> None:
    log.handlers[0].setLevel(logging.WARNING)
    log.warning("soon")
    log.log(45, "in between")
    log.info("no")
    assert sorted((each["severity"], each["message"]) for each in flushed(2)) == [
        ("ERROR", "in between"), ("WARN", "soon"),
    ]  # fmt: skip


def test_the_service_is_the_spans_unless_it_is_given(
    publisher: TelemetryPublisher, flushed: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of the environment")
    logger, handler = logging.getLogger("test.service"), SpanfoldLogHandler(publisher)
    logger.addHandler(handler)
    provider = TracerProvider(resource=Resource({"service.name": "of the span", "service.instance.id": "i-1"}))
    logger.error("outside")
    with provider.get_tracer("test").start_as_current_span("work"):
        logger.error("inside")
    logger.removeHandler(handler)
    found = {each["message"]: each for each in flushed(2)}
    assert found["outside"]["service_name"] == "of the environment"
    assert (found["inside"]["service_name"], found["inside"]["source"]) == ("of the span", "of the span/i-1")


def test_nothing_in_a_record_disturbs_the_application(log: logging.Logger, flushed: Errors) -> None:
    # straight to the handler: pytest's own raises where a record can't be formatted
    log.handlers[0].handle(log.makeRecord("shop", logging.ERROR, "f", 1, "takes %d", ("no number",), None))
    log.error("a\0b\ud800")
    log.error("x" * 3_000_000)
    log.error({"not": "text"})
    log.error("no exception here", exc_info=True)
    messages = [each["message"] for each in flushed(5)]
    assert "takes %d ('no number',)" in messages
    assert "a\ufffdb\ufffd" in messages
    assert "{'not': 'text'}" in messages
    (long,) = (each for each in messages if each.startswith("xxx"))
    assert LONGEST_TEXT < len(long) < LONGEST_TEXT + 100
    assert "2,940,000 characters are left out" in long


def test_what_publishing_itself_logs_is_not_published(publisher: TelemetryPublisher, caplog: Any) -> None:
    handler = SpanfoldLogHandler(publisher, level=logging.DEBUG)
    root = logging.getLogger()
    root.addHandler(handler)
    publisher.close()
    for _ in range(3):
        logging.getLogger("shop").error("boom")
    logging.getLogger("spanfold.publisher").error("our own")
    root.removeHandler(handler)
    assert publisher.counts().published == 0
    assert len([each for each in caplog.records if "a log record was not published" in each.getMessage()]) == 1


def test_a_publish_that_logs_does_not_publish_for_ever(
    publisher: TelemetryPublisher, flushed: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, handler = logging.getLogger("test.loop"), SpanfoldLogHandler(publisher, service_name="loop")
    logger.addHandler(handler)
    encode = publisher._codec.encode

    def loud(*args: Any) -> bytes:
        logger.error("an instrumented client says something")
        return encode(*args)

    monkeypatch.setattr(publisher._codec, "encode", loud)
    logger.error("boom")
    logger.removeHandler(handler)
    assert [each["message"] for each in flushed(1)] == ["boom"]


def test_without_kafka_nobody_waits() -> None:
    logger = logging.getLogger("test.away")
    with TelemetryPublisher("127.0.0.1:1", on_full="drop", message_timeout_s=0.5) as publisher:
        handler = SpanfoldLogHandler(publisher, service_name="s")
        logger.addHandler(handler)
        started = time.monotonic()

        def fail() -> None:
            for _ in range(100):
                logger.error("boom")

        threads = [threading.Thread(target=fail) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert time.monotonic() - started < 30  # 400 that would each be waited for
        logger.removeHandler(handler)
        handler.close()
        assert publisher.counts().failed == 400


def test_the_handlers_own_publisher_is_closed_with_it(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanfold.language.settings import settings

    monkeypatch.setenv("SPANFOLD_KAFKA_BOOTSTRAP", kafka_bootstrap)
    settings.cache_clear()
    handler = SpanfoldLogHandler(service_name="s")
    handler.close()
    handler.handle(logging.LogRecord("x", logging.ERROR, "f", 1, "late", (), None))
    assert handler.publisher.counts().dropped == 1
    settings.cache_clear()
