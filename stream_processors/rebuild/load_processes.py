"""Folds ranges of the log into a generation, in processes of its own: partitions go side by side.

A process that loads holds no more than two batches at work and two read ahead, however long the log is.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import psycopg

from spanfold.language.errors import SpanfoldError, StoreUnavailable
from spanfold.language.settings import Settings
from spanfold.postgres.connections import connect
from spanfold.projections.generations.shadow import Shadow
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild.log_reader import POLL_S, LogReader, OffsetRange
from spanfold.stream_processors.worker import gc_tuning


@dataclass(frozen=True, slots=True)
class Target:
    """The generation that is loaded, in terms that can be sent to a process."""

    projection: str
    number: int
    schema: str
    dsn: str
    merge_timeout_s: float


def fold(reader: LogReader, connection: psycopg.Connection[Any], shadow: Shadow, ranges: Sequence[OffsetRange]) -> None:
    """Fold these ranges into the shadow, in this process. While Postgres commits one batch, the next is decoded."""
    with ThreadPoolExecutor(1, thread_name_prefix="spanfold-load") as executor:
        committing: Future[None] | None = None
        for batch in reader.batches(ranges):
            prepared = shadow.prepare(batch)
            if committing is not None:
                committing.result()
            committing = executor.submit(shadow.commit, connection, prepared)
        if committing is not None:
            committing.result()


def fold_in_processes(
    settings: Settings, target: Target, ranges: Sequence[OffsetRange], processes: int, tick: Callable[[], None]
) -> None:
    """Fold these ranges, each in one of `processes`; `tick` is called a few times a second meanwhile. The processes end with
    this one, however it ends. Raises the error of the first one that failed.
    """
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(settings,)
    )
    try:
        longest_first = sorted(filter(None, ranges), key=len, reverse=True)
        unfinished = {pool.submit(_fold_one, target, each) for each in longest_first}
        while unfinished:
            done, unfinished = wait(unfinished, timeout=POLL_S / 2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            tick()
    except BrokenProcessPool as error:
        raise SpanfoldError("a loading process was killed (out of memory?); run again") from error
    finally:
        # on an error, and on Ctrl-C, nobody waits for the others: what they have committed is kept and resumed from
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _fold_one(target: Target, offsets: OffsetRange) -> None:
    shadow = Shadow(installed()[target.projection], target.number, target.schema, target.merge_timeout_s)
    try:
        # what a crash takes back is folded again: the checkpoints go with the rows
        with connect(target.dsn, "spanfold load", {"synchronous_commit": "off"}) as connection:
            fold(_reader, connection, shadow, [offsets])
    except SpanfoldError as error:
        raise type(error)(str(error)) from None  # without its cause, which may not be picklable
    except psycopg.Error as error:
        raise StoreUnavailable(f"Postgres: {error.sqlstate or ''} {' '.join(str(error).split())}") from None


_reader: LogReader
"""One for all ranges of a process: a consumer that is closed leaves most of the memory behind that its threads took, and the
next one's threads take their own (an arena each, in glibc).
"""


def _begin(settings: Settings) -> None:
    """In a process of the pool: be quick, end when the parent does, and leave Ctrl-C to it."""
    global _reader
    gc_tuning.tune()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _reader = LogReader(settings)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
