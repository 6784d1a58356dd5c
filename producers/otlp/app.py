"""The HTTP side of OTLP/HTTP.

| answer | when                                                                  | what the sender does     |
|--------|-----------------------------------------------------------------------|--------------------------|
| 200    | Kafka has acknowledged every record; partial_success names invalid spans | is done                |
| 400    | the body is malformed                                                 | gives up                 |
| 408    | the body did not arrive in time                                       | gives up                 |
| 413    | the body is larger than bodies.MAX_BODY_BYTES, decompressed           | sends smaller ones       |
| 415    | another Content-Type or Content-Encoding                              | gives up                 |
| 503    | Kafka is away, or takes less than comes in                            | sends again; nothing is counted twice |

Answers other than 200 are a google.rpc.Status, in the request's own encoding where it has one.
"""

import asyncio
import os
import time
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client.exposition import choose_encoder
from starlette.requests import ClientDisconnect

from spanfold.kafka.broker import Broker
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.producers.otlp.bodies import (
    JSON,
    MAX_BODY_BYTES,
    BodyTooLarge,
    Encoding,
    UnknownMedia,
    encoding_of,
    message_of,
)
from spanfold.producers.otlp.intake import Taken, publish
from spanfold.producers.otlp.metrics import Metrics
from spanfold.producers.publisher import TelemetryPublisher

RETRY_AFTER_S: Final = 2
BODY_S: Final = 10.0
"""How long a body may take to arrive: as long as SDKs give a request."""

SLOTS: Final = 16
"""Requests that are read, decoded and published at the same time; others wait with their bodies unread, so memory is
bounded by this many bodies. Requests that wait for Kafka don't count.
"""

_DRAINED: Final = 4 * MAX_BODY_BYTES
"""So much of a body that is too large is read and thrown away, for many clients only then listen to the answer."""

_CLIENT_CLOSED: Final = 499


class BodyTooSlow(InvalidInput):
    """The body did not arrive in BODY_S."""


_STATUS_OF: Final[dict[type[SpanfoldError], int]] = {
    UnknownMedia: 415,
    BodyTooLarge: 413,
    BodyTooSlow: 408,
    InvalidInput: 400,
}


def otlp_app(publisher: TelemetryPublisher, broker: Broker) -> FastAPI:
    """The application; the publisher stays its owner's, who closes it."""
    app = FastAPI(title="spanfold OTLP/HTTP", openapi_url=None)
    metrics = Metrics()
    traces = Traces(publisher, metrics)

    @app.post("/v1/traces")
    async def export_traces(request: Request) -> Response:
        with metrics.requests_in_flight.track_inprogress():
            response = await traces.export(request)
        metrics.requests.labels(str(response.status_code)).inc()
        return response

    @app.get("/healthz")
    async def health() -> JSONResponse:
        problems = await asyncio.to_thread(broker.problems)
        return JSONResponse(
            {"healthy": not problems, "problems": problems, "pid": os.getpid()}, status_code=503 if problems else 200
        )

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": content_type})

    return app


class Traces:
    """Answers requests to /v1/traces."""

    def __init__(self, publisher: TelemetryPublisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._slots = asyncio.Semaphore(SLOTS)

    async def export(self, request: Request) -> Response:
        """The answer; never raises on what a client or Kafka may do."""
        encoding = JSON
        try:
            encoding = encoding_of(request.headers.get("content-type", ""))
            return _told(await self._take(request, encoding), encoding)
        except SpanfoldError as error:
            return _refused(error, encoding)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED)

    async def _take(self, request: Request, encoding: Encoding) -> Taken:
        async with self._slots:
            body, arrived = await _body(request), time.perf_counter()
            message = await asyncio.to_thread(
                message_of, ExportTraceServiceRequest, body, encoding, request.headers.get("content-encoding", "")
            )
            taken, acknowledgements = await publish(self._publisher, message)
        await acknowledgements.wait()
        self._metrics.ack_duration.observe(time.perf_counter() - arrived)
        self._metrics.spans_accepted.inc(taken.accepted)
        self._metrics.spans_rejected.inc(taken.rejected)
        return taken


async def _body(request: Request) -> bytes:
    """The body as it was sent. BodyTooLarge, BodyTooSlow."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    chunks.append(chunk)
                elif size > _DRAINED:
                    break
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {BODY_S:g} s") from None
    if size > MAX_BODY_BYTES:
        raise BodyTooLarge
    return b"".join(chunks)


def _told(taken: Taken, encoding: Encoding) -> Response:
    answer = ExportTraceServiceResponse()
    if taken.rejected:
        answer.partial_success.rejected_spans = taken.rejected
        answer.partial_success.error_message = "; ".join(taken.reasons)
    return Response(encoding.write(answer), media_type=encoding.content_type)


def _refused(error: SpanfoldError, encoding: Encoding) -> Response:
    """Whatever is not the sender's fault is worth another try, also a topic that an operator has yet to make."""
    of_sender = isinstance(error, InvalidInput)
    status = Status(code=code_pb2.INVALID_ARGUMENT if of_sender else code_pb2.UNAVAILABLE, message=str(error))
    return Response(
        encoding.write(status),
        status_code=_STATUS_OF[type(error)] if of_sender else 503,
        headers={} if of_sender else {"Retry-After": str(RETRY_AFTER_S)},
        media_type=encoding.content_type,
    )
