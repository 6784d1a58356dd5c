"""The load: customers who browse, fill carts and check out, so many at a time, until there are enough spans."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx

from spanfold.demo.processes import ONE_REQUEST_A_CONNECTION, Shop

CONCURRENCY: Final = 8
_LOOK_EVERY_S: Final = 0.25

Watch = Callable[[int, float], None]
"""Told how many spans there are, and after how many seconds."""


@dataclass
class Served:
    """What the customers met: answers by status code, within `seconds`."""

    answers: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        return self.answers.total()


def run_load(shop: Shop, *, seconds: float, spans: int | None, watch: Watch) -> Served:
    """Send requests for `seconds`, or until the shop's SDKs have ended `spans` spans. Every request is answered."""
    return asyncio.run(_run(shop, seconds, spans, watch))


async def _run(shop: Shop, seconds: float, spans: int | None, watch: Watch) -> Served:
    served, enough = Served(), asyncio.Event()
    started = time.monotonic()
    client = httpx.AsyncClient(base_url=shop.urls["storefront"], timeout=30, limits=ONE_REQUEST_A_CONNECTION)
    async with client, asyncio.TaskGroup() as group:
        for number in range(CONCURRENCY):
            group.create_task(_customer(client, random.Random(number), served, enough))  # noqa: S311
        while not enough.is_set():
            await asyncio.sleep(_LOOK_EVERY_S)
            made = await asyncio.to_thread(_spans_made, shop)
            elapsed = time.monotonic() - started
            watch(made, elapsed)
            if (made >= spans) if spans is not None else (elapsed >= seconds):
                enough.set()
    served.seconds = time.monotonic() - started
    return served


def _spans_made(shop: Shop) -> int:
    return sum(counts["spans"] for counts in shop.telemetry().values())


async def _customer(client: httpx.AsyncClient, whim: random.Random, served: Served, enough: asyncio.Event) -> None:
    while not enough.is_set():
        wish = whim.random()
        if wish < 0.5:
            answer = await client.get(f"/products/{whim.choice(('lamp', 'chair', 'teapot'))}")
        elif wish < 0.7:
            answer = await client.get("/cart")
        else:
            answer = await client.post("/checkout", params={"amount": whim.randint(5, 500)})
        served.answers[answer.status_code] += 1
