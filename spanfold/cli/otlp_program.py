"""The front door as a part of the stack."""

import http.client
import sys
from typing import Final

from spanfold.embedded import Program
from spanfold.embedded.ports import choose_ports, is_free
from spanfold.embedded.servers import PORTS_FILE
from spanfold.language.settings import Settings

NAME: Final = "otlp"
STOP_S: Final = 20.0
"""Longer than requests in flight may take."""


def otlp_program(settings: Settings) -> Program:
    """The front door on the port of the settings, or on another one where that is taken; ready once it is healthy."""
    port = settings.otlp_port
    if not port or not is_free(port):
        port = choose_ports((NAME,), settings.home / PORTS_FILE)[NAME]
    argv = [sys.executable, "-m", "spanfold", "otlp", "--host", settings.otlp_host, "--port", str(port)]
    return Program(NAME, argv, ready=lambda: _is_healthy(settings.otlp_host, port), stop_timeout_s=STOP_S)


def _is_healthy(host: str, port: int) -> bool:
    asked = http.client.HTTPConnection(host, port, timeout=3)
    try:
        asked.request("GET", "/healthz")
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()
