"""A program that publishes in children of multiprocessing: `python children.py METHOD BY` names the start method, and whether
spans go through the processor or wait in a batch.
"""

import logging
import multiprocessing
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from spanfold.producers.opentelemetry import SpanfoldSpanExporter, SpanfoldSpanProcessor

METHOD, BY = sys.argv[1:3] if len(sys.argv) > 2 else ("", "")
SPANS = 5

logging.basicConfig()
provider = TracerProvider(resource=Resource({"service.name": "children"}))
provider.add_span_processor(
    BatchSpanProcessor(SpanfoldSpanExporter(), schedule_delay_millis=60_000)
    if BY == "batch"
    else SpanfoldSpanProcessor()
)
tracer = provider.get_tracer("children")


def work(name: str) -> None:
    for _ in range(SPANS):
        tracer.start_span(name).end()


def work_until_terminated(ready: Any) -> None:
    work("terminated")
    ready.set()
    time.sleep(600)


def work_with_own_handler(ready: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    work_until_terminated(ready)


def main() -> None:
    context: Any = multiprocessing.get_context(METHOD)
    process = context.Process(target=work, args=("process",))
    process.start()
    process.join()
    with context.Pool(2) as pool:
        pool.map(work, ["pool"] * 2, chunksize=1)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(work, ["executor"] * 2))
    codes = [process.exitcode]
    for target in (work_until_terminated, work_with_own_handler):
        ready = context.Event()
        terminated = context.Process(target=target, args=(ready,))
        terminated.start()
        ready.wait()
        terminated.terminate()
        terminated.join()
        codes.append(terminated.exitcode)
    print(codes)


if __name__ == "__main__":
    main()
