"""The shop's three processes: started with their sockets already listening, answers for their counts, stopped in order."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

import httpx

from spanfold.kafka.plaintext import NO_SECURITY_IN_ENVIRONMENT
from spanfold.language.errors import SpanfoldError
from spanfold.language.settings import Settings

RUN_TAG: Final = "demo.run"
"""The attribute that all spans of one run of the demo carry."""

SERVICES: Final = ("storefront", "inventory", "payments")
ONE_REQUEST_A_CONNECTION: Final = httpx.Limits(max_keepalive_connections=0)
"""uvicorn closes the connection after an unhandled error, just when the client may be sending its next request."""

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
_LOG_TAIL_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class Shop:
    """A running shop: the base URL of each service."""

    urls: Mapping[str, str]

    def telemetry(self, *, flush: bool = False) -> dict[str, dict[str, int]]:
        """For each service: spans that its SDK ended, events published, acknowledged, failed, dropped."""
        answers = {
            name: httpx.get(f"{url}/telemetry", params={"flush": flush}, timeout=30) for name, url in self.urls.items()
        }
        return {name: answer.raise_for_status().json() for name, answer in answers.items()}


@contextmanager
def running_shop(settings: Settings, run: str) -> Iterator[Shop]:
    """The shop, publishing to the Kafka of the settings; `run` is on every span. SpanfoldError when it doesn't start."""
    listening = {name: _listening_socket() for name in SERVICES}
    urls = {name: f"http://127.0.0.1:{address.getsockname()[1]}" for name, address in listening.items()}
    with tempfile.TemporaryFile() as log:
        processes = {name: _start(name, run, address, urls, settings, log) for name, address in listening.items()}
        try:
            for name, process in processes.items():
                _wait_until_up(name, process, urls[name], log)
            yield Shop(urls)
        finally:
            _stop(list(processes.values()))


def _listening_socket() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(128)
    return made


def _start(
    name: str, run: str, listening: socket.socket, urls: Mapping[str, str], settings: Settings, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    others = {other: url for other, url in urls.items() if other != name}
    environment = {
        **os.environ,
        **(NO_SECURITY_IN_ENVIRONMENT if settings.kafka_security_protocol == "PLAINTEXT" else {}),
        "SPANFOLD_KAFKA_BOOTSTRAP": str(settings.kafka_bootstrap),
        "SPANFOLD_TOPIC_PREFIX": settings.topic_prefix,
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",  # http.server.request.duration, rather than its older names
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "spanfold.demo.shop", name, run, str(listening.fileno()), json.dumps(others)],
        env=environment,
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the service ends too
        stdout=log,
        stderr=log,
        pass_fds=[listening.fileno()],
    )
    listening.close()
    return process


def _wait_until_up(name: str, process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # the socket listens already: the answer comes when the service is up
            httpx.get(f"{url}/telemetry", timeout=1).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
    raise SpanfoldError(f"the demo's {name} did not start:\n{log.read().decode(errors='replace')}")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
