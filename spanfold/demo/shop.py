"""The shop: three FastAPI services that call each other over HTTP, observed by OpenTelemetry's public instrumentation.

Each is a process of its own (`python -m spanfold.demo.shop NAME`) with its own TracerProvider. What makes it a spanfold
user is one line a signal: a SpanfoldSpanProcessor, a SpanfoldMetricExporter, a SpanfoldLogHandler. Some of its queries are
slow, some charges fail.
"""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from spanfold.demo.processes import ONE_REQUEST_A_CONNECTION, RUN_TAG
from spanfold.producers.log_handler import SpanfoldLogHandler
from spanfold.producers.opentelemetry import SpanfoldMetricExporter, SpanfoldSpanProcessor

METRICS_EVERY_MS: Final = 1000

SLOW_SHARE: Final = 0.03
DECLINED_SHARE: Final = 0.06
BROKEN_SHARE: Final = 0.04

_chance: Final = random.Random()  # noqa: S311  # who is unlucky is no secret


class RunProcessor(SpanProcessor):
    """Tags every span with the run, and counts the spans that the SDK ends."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = threading.Lock()
        self.ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attribute(RUN_TAG, self._run)

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self.ended += 1


class CardNetworkUnreachable(Exception):
    """Nobody knows whether the card is good."""


class Service:
    """A FastAPI application with its telemetry, and clients that carry the trace on to the other services."""

    def __init__(self, name: str, run: str, urls: Mapping[str, str]) -> None:
        resource = Resource.create({"service.name": name, "service.instance.id": run})
        self.provider = TracerProvider(resource=resource)
        self.counter = RunProcessor(run)
        self.spanfold = SpanfoldSpanProcessor()
        self.provider.add_span_processor(self.counter)
        self.provider.add_span_processor(self.spanfold)
        exporter = SpanfoldMetricExporter(self.spanfold.publisher, temporality="delta")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=METRICS_EVERY_MS)
        self.meters = MeterProvider(metric_readers=[reader], resource=resource)
        self.log = logging.getLogger(f"shop.{name}")
        self.log.addHandler(SpanfoldLogHandler(self.spanfold.publisher))
        self.tracer: Tracer = self.provider.get_tracer("spanfold.demo")
        self.clients = {
            other: httpx.AsyncClient(base_url=url, timeout=10, limits=ONE_REQUEST_A_CONNECTION)
            for other, url in urls.items()
        }
        for client in self.clients.values():
            HTTPXClientInstrumentor.instrument_client(client, tracer_provider=self.provider, meter_provider=self.meters)
        self.app = FastAPI(title=name, lifespan=self._lifespan)
        self.app.add_api_route("/telemetry", self.telemetry)
        ROUTES[name](self)
        FastAPIInstrumentor.instrument_app(
            self.app,
            tracer_provider=self.provider,
            meter_provider=self.meters,
            excluded_urls="telemetry",
            exclude_spans=["receive", "send"],
        )

    async def telemetry(self, flush: bool = False) -> dict[str, int]:
        """How many spans the SDK ended, and what became of the events."""
        if flush:
            await asyncio.to_thread(self.meters.force_flush)
            await self.spanfold.publisher.aflush()
        return {"spans": self.counter.ended, **asdict(self.spanfold.publisher.counts())}

    async def query(self, statement: str, slow: bool | None = None) -> None:
        """A database query, as far as its callers can tell: 1-4 ms, or 200-400 ms when it is a slow one."""
        if slow is None:
            slow = _chance.random() < SLOW_SHARE
        with self.tracer.start_as_current_span(statement, kind=SpanKind.CLIENT, attributes={"db.system": "postgresql"}):
            await asyncio.sleep(_chance.uniform(0.2, 0.4) if slow else _chance.uniform(0.001, 0.004))

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        yield
        for client in self.clients.values():
            await client.aclose()
        await asyncio.to_thread(self.meters.shutdown)
        await asyncio.to_thread(self.provider.shutdown)


def storefront(service: Service) -> None:
    """Where customers arrive: products, carts, checkouts."""
    app, inventory, payments = service.app, service.clients["inventory"], service.clients["payments"]

    @app.get("/products/{sku}")
    async def product(sku: str) -> dict[str, Any]:
        stock = await inventory.get(f"/stock/{sku}")
        with service.tracer.start_as_current_span("render product", attributes={"sku": sku}):
            return {"sku": sku, "available": stock.json()["available"]}

    @app.get("/cart")
    async def cart() -> dict[str, int]:
        await service.query("SELECT cart")
        return {"items": 3}

    @app.post("/checkout")
    async def checkout(amount: int) -> dict[str, str]:
        trace.get_current_span().set_attribute("amount", amount)
        await inventory.post("/reservations")
        charge = await payments.post("/charges", params={"amount": amount})
        if charge.status_code == httpx.codes.PAYMENT_REQUIRED:
            raise HTTPException(402, "payment declined")
        if charge.is_error:
            trace.get_current_span().record_exception(RuntimeError("payments is broken: the order was not placed"))
            service.log.error("an order was not placed", extra={"amount": amount, "answer": charge.status_code})
            raise HTTPException(502, "payments is broken")
        await service.query("INSERT order")
        return {"order": "placed"}


def inventory(service: Service) -> None:
    """What is there, and for whom it is kept."""
    app = service.app

    @app.get("/stock/{sku}")
    async def stock(sku: str) -> dict[str, int]:
        await service.query("SELECT stock")
        return {"available": len(sku)}

    @app.post("/reservations")
    async def reserve() -> dict[str, bool]:
        await service.query("SELECT stock FOR UPDATE")
        await service.query("INSERT reservation", slow=False)
        return {"reserved": True}


def payments(service: Service) -> None:
    """Takes the money: most of the time."""
    app = service.app

    @app.post("/charges")
    async def charge(amount: int) -> dict[str, int]:
        with service.tracer.start_as_current_span("authorize card") as span:
            await asyncio.sleep(_chance.uniform(0.002, 0.01))
            luck = _chance.random()
            if luck < BROKEN_SHARE:
                try:
                    raise CardNetworkUnreachable("no route to the acquirer")
                except CardNetworkUnreachable:
                    service.log.exception("a charge failed", extra={"amount": amount})
                    raise
            if luck < BROKEN_SHARE + DECLINED_SHARE:
                span.add_event("declined", {"amount": amount, "code": 51})
                raise HTTPException(402, "declined")
        await service.query("INSERT charge")
        return {"charged": amount}


ROUTES: Final[dict[str, Callable[[Service], None]]] = {
    "storefront": storefront,
    "inventory": inventory,
    "payments": payments,
}


def main() -> None:
    """Serve one of the services on the listening socket that it inherits, until SIGTERM or the end of standard input."""
    name, run, descriptor, urls = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    service = Service(name, run, urls)
    config = uvicorn.Config(service.app, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
