"""Publishing a request's spans when nobody takes them."""

import pytest

from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.producers.otlp.intake import ROOM_S, otlp_publisher, publish
from tests.producers.otlp.door import a_span, an_export, as_message


async def test_a_full_buffer_refuses_the_request_after_a_moment() -> None:
    padding = [{"key": "padding", "value": {"stringValue": "x" * 900_000}}]
    request = as_message(an_export(a_span(number=2, attributes=padding)))
    spans = request.resource_spans[0].scope_spans[0].spans
    spans.extend([spans[0]] * 99)
    publisher = otlp_publisher(Settings(kafka_bootstrap="127.0.0.1:1"))
    try:
        with pytest.raises(LogUnavailable, match=rf"the publisher's buffer has been full for {ROOM_S:g} s"):
            await publish(publisher, request)
        assert 60 < publisher.counts().published < 90
    finally:
        publisher.close(0)


async def test_what_kafka_does_not_acknowledge_is_an_error_of_the_request() -> None:
    publisher = otlp_publisher(Settings(kafka_bootstrap="127.0.0.1:1"))
    try:
        taken, acknowledgements = await publish(publisher, as_message(an_export(a_span(), a_span(traceId="ab"))))
        assert (taken.accepted, taken.rejected) == (1, 1)
        with pytest.raises(LogUnavailable, match="not acknowledged"):
            await acknowledgements.wait()
    finally:
        publisher.close(0)


async def test_a_request_without_valid_spans_waits_for_nobody() -> None:
    publisher = otlp_publisher(Settings(kafka_bootstrap="127.0.0.1:1"))
    try:
        taken, acknowledgements = await publish(publisher, as_message(an_export(a_span(traceId="ab"))))
        await acknowledgements.wait()
        assert taken.reasons == ["span 'operation 1': trace_id has 1 bytes, not 16"]
    finally:
        publisher.close(0)
