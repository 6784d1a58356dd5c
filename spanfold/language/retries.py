"""Retries by what spanfold's own errors say: LogUnavailable and StoreUnavailable are worth another try, no other error is.

Which errors of Postgres and Kafka become these two is decided in spanfold.postgres.errors and spanfold.kafka.retries.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_fixed,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from spanfold.language.errors import LogUnavailable, StoreUnavailable

Result = TypeVar("Result")

START_FIRST_PAUSE_S: Final = 0.5
START_LONGEST_PAUSE_S: Final = 10.0


def backoff(first_s: float, longest_s: float) -> wait_base:
    """Back-off with full jitter: a random pause of up to `first_s`, then up to twice as much each time, at most `longest_s`."""
    return wait_random_exponential(multiplier=first_s, max=longest_s)


def while_unavailable(work: Callable[[], Result], before_pause: Callable[[RetryCallState], None]) -> Result:
    """What `work` returns, tried again with back-off for as long as Kafka or Postgres is away."""
    attempts = Retrying(
        retry=retry_if_exception_type((LogUnavailable, StoreUnavailable)),
        wait=backoff(START_FIRST_PAUSE_S, START_LONGEST_PAUSE_S),
        before_sleep=before_pause,
    )
    return attempts(work)


async def while_log_unavailable(
    work: Callable[[], Result], pause_s: float, before_pause: Callable[[RetryCallState], None]
) -> Result:
    """What `work` returns, run in a thread and tried again every `pause_s` for as long as Kafka is away."""
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(LogUnavailable), wait=wait_fixed(pause_s), before_sleep=before_pause
    )
    return await attempts(asyncio.to_thread, work)


def error_of(state: RetryCallState) -> BaseException | None:
    """The error of the attempt that has just failed."""
    return state.outcome.exception() if state.outcome else None
