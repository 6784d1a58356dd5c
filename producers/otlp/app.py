"""The HTTP side of OTLP/HTTP.

| answer | when                                                                  | what the sender does     |
|--------|-----------------------------------------------------------------------|--------------------------|
| 200    | Kafka has acknowledged every record; partial_success names invalid spans | is done                |
| 400    | the body is malformed                                                 | gives up                 |
| 408    | the body did not arrive in time                                       | gives up                 |
| 413    | the body is larger than MAX_EXPORT_BYTES, decompressed                | sends smaller ones       |
| 415    | another Content-Type or Content-Encoding                              | gives up                 |
| 503    | Kafka is away, or accepts less than comes in                           | sends again; nothing is counted twice |

Answers other than 200 are a google.rpc.Status, in the request's own encoding where it has one.
"""

import asyncio
import time
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import ClientDisconnect

from spanfold.http.body_limits import MAX_EXPORT_BYTES, read_body
from spanfold.http.health import add_health
from spanfold.http.metrics import add_metrics
from spanfold.http.problems import RETRY_AFTER_S
from spanfold.kafka.broker import Broker
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.producers.otlp.bodies import JSON, Encoding, encoding_of, message_of
from spanfold.producers.otlp.intake import Intake, publish
from spanfold.producers.otlp.metrics import Metrics
from spanfold.producers.publisher import TelemetryPublisher

SLOTS: Final = 16
"""Requests that are read, decoded and published at the same time; the others wait with their bodies unread, so memory is
bounded by this many bodies. Requests that wait for Kafka don't count.
"""

_CLIENT_CLOSED: Final = 499


def otlp_app(publisher: TelemetryPublisher, broker: Broker) -> FastAPI:
    """The application; whoever made the publisher closes it."""
    app = FastAPI(title="spanfold OTLP/HTTP", openapi_url=None)
    metrics = Metrics()
    traces = Traces(publisher, metrics)

    @app.post("/v1/traces")
    async def export_traces(request: Request) -> Response:
        with metrics.requests_in_flight.track_inprogress():
            response = await traces.export(request)
        metrics.requests.labels(str(response.status_code)).inc()
        return response

    add_health(app, lambda: asyncio.to_thread(broker.problems))
    add_metrics(app, metrics.registry)
    return app


class Traces:
    """Answers requests to /v1/traces."""

    def __init__(self, publisher: TelemetryPublisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._slots = asyncio.Semaphore(SLOTS)

    async def export(self, request: Request) -> Response:
        """The answer, whatever a client or Kafka may do."""
        encoding = JSON
        try:
            encoding = encoding_of(request.headers.get("content-type", ""))
            return _success(await self._publish(request, encoding), encoding)
        except SpanfoldError as error:
            return _failure(error, encoding)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED)

    async def _publish(self, request: Request, encoding: Encoding) -> Intake:
        async with self._slots:
            body, arrived = await read_body(request.stream(), MAX_EXPORT_BYTES), time.perf_counter()
            message = await asyncio.to_thread(
                message_of, ExportTraceServiceRequest, body, encoding, request.headers.get("content-encoding", "")
            )
            intake, acknowledgements = await publish(self._publisher, message)
        await acknowledgements.wait()
        self._metrics.ack_duration.observe(time.perf_counter() - arrived)
        self._metrics.spans_accepted.inc(intake.accepted)
        self._metrics.spans_rejected.inc(intake.rejected)
        return intake


def _success(intake: Intake, encoding: Encoding) -> Response:
    answer = ExportTraceServiceResponse()
    if intake.rejected:
        answer.partial_success.rejected_spans = intake.rejected
        answer.partial_success.error_message = "; ".join(intake.reasons)
    return Response(encoding.write(answer), media_type=encoding.content_type)


def _failure(error: SpanfoldError, encoding: Encoding) -> Response:
    """Any error that is not the sender's fault is worth a retry, also a topic that an operator has yet to create."""
    senders_fault = isinstance(error, InvalidInput)
    status = Status(code=code_pb2.INVALID_ARGUMENT if senders_fault else code_pb2.UNAVAILABLE, message=str(error))
    return Response(
        encoding.write(status),
        status_code=error.http_status if senders_fault else HTTPStatus.SERVICE_UNAVAILABLE,
        headers={} if senders_fault else {"Retry-After": str(RETRY_AFTER_S)},
        media_type=encoding.content_type,
    )
