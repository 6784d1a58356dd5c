"""What a child of multiprocessing publishes arrives, or the log says how much was lost."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spanfold.language.settings import Settings
from tests.producers.children import SPANS

PROGRAM = Path(__file__).with_name("children.py")
METHODS = ("fork", "forkserver", "spawn")
NAMES = {"process": 1, "pool": 2, "executor": 2, "terminated": 2}
OF_A_ROOT = 3
"""Events of a span that is a trace of its own."""


def run(method: str, by: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    return subprocess.run(
        [sys.executable, str(PROGRAM), method, by],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


@pytest.mark.parametrize("by", ["processor", "batch"])
@pytest.mark.parametrize("method", METHODS)
def test_each_span_of_each_child_arrives(
    method: str, by: str, settings: Settings, read_all: Callable[[int], list[Any]], decoded: Callable[[Any], Any]
) -> None:
    done = run(
        method, by, SPANFOLD_KAFKA_BOOTSTRAP=str(settings.kafka_bootstrap), SPANFOLD_TOPIC_PREFIX=settings.topic_prefix
    )
    assert done.stdout == "[0, -15, 7]\n", done.stderr
    records = map(decoded, read_all(OF_A_ROOT * SPANS * sum(NAMES.values())))
    spans = Counter(fields["operation_name"] for event_type, fields in records if event_type == "SpanRecorded")
    assert spans == {name: SPANS * children for name, children in NAMES.items()}, done.stderr


def test_what_is_lost_is_counted() -> None:
    program = """
import logging, multiprocessing
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.language.events import TraceCompleted

logging.basicConfig()
publisher = TelemetryPublisher("127.0.0.1:1")

def work():
    for number in range(3):
        publisher.publish(TraceCompleted(aggregate_id=str(number), occurred_at=1, source="test", end_time=1))

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "event='a child process ends with unsent events' unsent=3" in done.stderr
