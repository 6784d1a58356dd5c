"""The standard library's logging, publishing through a real Kafka."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from spanfold.language.events import LogRecorded
from spanfold.producers.attributes import LONGEST_TEXT
from spanfold.producers.log_handler import SpanfoldLogHandler
from spanfold.producers.logs import Ordinals
from spanfold.producers.publisher import TelemetryPublisher

LogRecords = Callable[[int], list[dict[str, Any]]]


class CardDeclined(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def log(publisher: TelemetryPublisher) -> Iterator[logging.Logger]:
    logger, handler = logging.getLogger("shop.payments"), SpanfoldLogHandler(publisher, service_name="payments")
    logger.addHandler(handler)
    yield logger
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)
    handler.close()


@pytest.fixture
def flushed(publisher: TelemetryPublisher, log_records: LogRecords) -> LogRecords:
    def read(expected: int) -> list[dict[str, Any]]:
        assert publisher.flush() == 0
        return log_records(expected)

    return read


def test_an_exception_is_told_with_its_stack_and_its_span(log: logging.Logger, flushed: LogRecords) -> None:
    tracer = TracerProvider().get_tracer("test")
    before = time.time_ns() // 1000
    with tracer.start_as_current_span("charge") as span:
        try:
            raise CardDeclined("no funds")
        except CardDeclined:
            log.exception("charge %s failed", 17, extra={"amount": 12.5, "card": {"last": ("4242", None)}})
    (event,) = flushed(1)
    context = span.get_span_context()
    assert event["aggregate_id"] == event["trace_id"] == f"{context.trace_id:032x}"
    assert event["span_id"] == f"{context.span_id:016x}"
    assert (event["body"], event["severity_number"], event["severity_text"]) == ("charge 17 failed", 17, "ERROR")
    assert (event["scope_name"], event["scope_version"], event["event_name"]) == ("shop.payments", "", "")
    assert event["resource"] == {"service.name": "payments"}
    assert event["service_name"] == event["source"] == "payments"
    assert before - 1000 <= event["occurred_at"] <= time.time_ns() // 1000
    assert event["observed_time"] == event["occurred_at"]
    tags = event["tags"]
    assert tags.pop("exception.type").endswith("test_log_handler.CardDeclined")
    stacktrace = tags.pop("exception.stacktrace")
    assert stacktrace.startswith("Traceback (most recent call last)")
    assert stacktrace.rstrip().endswith("CardDeclined: no funds")
    assert tags.pop("code.line.number") > 0
    assert tags == {
        "amount": 12.5, "card": {"last": ["4242", None]}, "exception.message": "no funds", "code.file.path": __file__,
        "code.function.name": "test_an_exception_is_told_with_its_stack_and_its_span",
    }  # fmt: skip


def test_without_a_span_the_service_is_the_aggregate(log: logging.Logger, flushed: LogRecords) -> None:
    log.critical("the ledger is gone")
    (event,) = flushed(1)
    assert (event["aggregate_id"], event["trace_id"], event["span_id"]) == ("payments", None, None)
    assert (event["severity_number"], event["severity_text"]) == (21, "CRITICAL")
    assert not any(name.startswith("exception.") for name in event["tags"])


def test_all_that_the_logger_passes_is_published(log: logging.Logger, flushed: LogRecords) -> None:
    logging.addLevelName(25, "NOTICE")
    log.setLevel(3)
    levels = (0, 2, 3, 10, 20, 25, 30, 40, 45, 50, 99)
    for level in levels:
        log.handle(log.makeRecord(log.name, level, "f", 1, f"{level}", (), None)) if level == 0 else log.log(
            level, f"{level}"
        )
    found = {int(each["body"]): (each["severity_number"], each["severity_text"]) for each in flushed(len(levels) - 1)}
    assert found == {
        0: (0, "NOTSET"), 3: (1, "Level 3"), 10: (5, "DEBUG"), 20: (9, "INFO"), 25: (9, "NOTICE"), 30: (13, "WARNING"),
        40: (17, "ERROR"), 45: (17, "Level 45"), 50: (21, "CRITICAL"), 99: (21, "Level 99"),
    }  # fmt: skip


def test_the_level_may_be_the_handlers(log: logging.Logger, flushed: LogRecords) -> None:
    log.handlers[0].setLevel(logging.WARNING)
    log.warning("soon")
    log.info("no")
    assert [each["body"] for each in flushed(1)] == ["soon"]


def test_equal_records_of_one_microsecond_are_told_apart(log: logging.Logger, flushed: LogRecords) -> None:
    for number, at in enumerate((5.000001, 5.000002, 5.000001, 5.0000012, 5.000001)):
        record = log.makeRecord(log.name, logging.INFO, "f", 1, "other" if number == 4 else "again", (), None)
        record.created = at
        log.handlers[0].handle(record)
    found = flushed(5)
    assert sorted((each["occurred_at"], each["body"], each["ordinal"]) for each in found) == [
        (5_000_001, "again", 0), (5_000_001, "again", 1), (5_000_001, "again", 2), (5_000_001, "other", 0),
        (5_000_002, "again", 0),
    ]  # fmt: skip
    assert len({each["event_id"] for each in found}) == 5


def test_a_handler_remembers_the_latest_records() -> None:
    def record(number: int) -> LogRecorded:
        return LogRecorded(aggregate_id="s", occurred_at=number, source="s", service_name="s")

    ordinals = Ordinals(remembered=2)
    assert [ordinals.numbered(record(number)).ordinal for number in (1, 1, 2, 1, 3, 3, 1)] == [0, 1, 0, 2, 0, 1, 0]


def test_the_service_is_the_spans_unless_it_is_given(
    publisher: TelemetryPublisher, flushed: LogRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of the environment")
    logger, handler = logging.getLogger("test.service"), SpanfoldLogHandler(publisher)
    logger.addHandler(handler)
    provider = TracerProvider(resource=Resource({"service.name": "of the span", "service.instance.id": "i-1"}))
    logger.error("outside")
    with provider.get_tracer("test").start_as_current_span("work"):
        logger.error("inside")
    logger.removeHandler(handler)
    found = {each["body"]: each for each in flushed(2)}
    assert found["outside"]["service_name"] == "of the environment"
    assert (found["inside"]["service_name"], found["inside"]["source"]) == ("of the span", "of the span/i-1")


def test_nothing_in_a_record_disturbs_the_application(log: logging.Logger, flushed: LogRecords) -> None:
    # straight to the handler: pytest's own raises where a record can't be formatted
    log.handlers[0].handle(log.makeRecord("shop", logging.ERROR, "f", 1, "takes %d", ("no number",), None))
    log.error("a\0b\ud800")
    log.error("x" * 3_000_000)
    log.error({"not": "text"})
    log.error("no exception here", exc_info=True)
    odd: dict[Any, Any] = {"self": log.__dict__, "n": 2**70, "b": b"\xff", 7: object(), "mute": Mute()}
    log.error("odd", extra=odd, exc_info=Mute())
    messages = [each["body"] for each in flushed(6)]
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
    publisher: TelemetryPublisher, flushed: LogRecords, monkeypatch: pytest.MonkeyPatch
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
    assert [each["body"] for each in flushed(1)] == ["boom"]


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
