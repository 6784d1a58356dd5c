"""`spanfold api`: commands and queries over HTTP."""

import logging
from typing import Annotated

import typer

from spanfold.bootstrap import serve_api
from spanfold.cli.options import Home, installation
from spanfold.cli.output import notices
from spanfold.http.process_urls import leave_url


def api(
    home: Home = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: SPANFOLD_API_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 picks a free one. Default: SPANFOLD_API_PORT, else 4380."),
    ] = None,
) -> None:
    """Serve commands and queries over HTTP, until SIGTERM or Ctrl-C.

    POST /commands carries out commands of any installed aggregate, POST /queries queries the read models; health is at
    /healthz, metrics at /metrics. There is no authentication. See docs/write-side.md.

    Example: spanfold api --port 4380
    """
    settings = installation(home).settings
    logging.basicConfig(level=settings.log_level)

    def started(url: str) -> None:
        leave_url(settings.home, url)
        notices().print(f"commands at {url}/commands, queries at {url}/queries", soft_wrap=True)

    serve_api(settings, host or settings.api_host, settings.api_port if port is None else port, started)
