"""`spanfold otlp`: the front door for programs in any language. `spanfold up` runs it for you."""

import logging
from typing import Annotated

import typer

from spanfold.bootstrap import serve_otlp
from spanfold.cli.options import Home, installation
from spanfold.cli.output import notices
from spanfold.http.process_urls import leave_url


def otlp(
    home: Home = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: SPANFOLD_OTLP_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 picks a free one. Default: SPANFOLD_OTLP_PORT, else 4318."),
    ] = None,
) -> None:
    """Accept spans from OpenTelemetry SDKs over OTLP/HTTP, until SIGTERM or Ctrl-C.

    POST /v1/traces accepts protobuf and JSON, with or without gzip, and answers 200 once Kafka has acknowledged every
    span. While Kafka is unreachable it asks senders to retry. Health is at /healthz, metrics at /metrics.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=localhost:9092 spanfold otlp --port 4318
    """
    settings = installation(home).settings
    logging.basicConfig(level=settings.log_level)

    def started(url: str) -> None:
        leave_url(settings.home, url)
        notices().print(f"OTLP/HTTP at {url}, health at {url}/healthz, metrics at {url}/metrics", soft_wrap=True)

    serve_otlp(settings, host or settings.otlp_host, settings.otlp_port if port is None else port, started)
