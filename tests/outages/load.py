"""A steady load on OTLP, and what became of each request."""

import json
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

SPANS: Final = 5
"""In each request."""

PAUSE_S: Final = 0.05

SERVICE: Final = "outages"


def request_of(names: list[str]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """An OTLP/JSON request with a trace of its own for each name; the (trace, span) ids in it."""
    ids = [(secrets.token_hex(16), secrets.token_hex(8)) for _ in names]
    now = time.time_ns()
    spans = [
        {
            "traceId": trace_id, "spanId": span_id, "name": name,
            "startTimeUnixNano": str(now - 1_000_000), "endTimeUnixNano": str(now),
        }
        for (trace_id, span_id), name in zip(ids, names, strict=True)
    ]  # fmt: skip
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}
    return ids, {"resourceSpans": [{"resource": service, "scopeSpans": [{"spans": spans}]}]}


@dataclass
class Answers:
    """By status of OTLP; `unanswered` requests got no answer at all. `slowest_s` is the longest wait for one."""

    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


class Load:
    """Sends requests one after the other until it is stopped. `acknowledged`: the (trace, span) ids of those answered by 200."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/traces"
        self.acknowledged: set[tuple[str, str]] = set()
        self.answers = Answers()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(120)

    def begin(self) -> None:
        """Count answers anew."""
        self.answers = Answers()

    def send(self, *names: str) -> int:
        """One request with spans of these names; the status of its answer."""
        ids, body = request_of([*names])
        began = time.monotonic()
        response = httpx.post(
            self._url, content=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=60
        )
        self.answers.slowest_s = max(self.answers.slowest_s, time.monotonic() - began)
        self.answers.statuses[response.status_code] += 1
        if response.status_code == 200:
            self.acknowledged |= set(ids)
        return response.status_code

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S):
            try:
                self.send(*[f"GET /{number}" for number in range(SPANS)])
            except httpx.HTTPError as error:
                self.answers.unanswered[type(error).__name__] += 1
