"""`python -m tests.faults.appender`: appends to few aggregates as a service would, and keeps a diary of what it was told.

APPENDER_FOLDER names a folder with `plan`, JSON: aggregates, least (how many appends), tasks, seed, timeout_s, naive. A line of
the file `diary` is JSON: {"try": event id, …} before an append, {"told": event id, …} after it. It ends once it has done `least`
and there is a file `stop` beside the folder. A naive one does what looks right: it reads the version, and then produces without
expecting it.
"""

import asyncio
import json
import os
import random
import uuid
from pathlib import Path
from typing import Any, Final

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.application.event_store import Appended, Conflict, OutcomeUnknown
from spanfold.bootstrap import event_store
from spanfold.language.errors import LogUnavailable, StoreUnavailable
from spanfold.language.events import ServiceHealthChanged
from spanfold.language.settings import settings
from spanfold.language.times import now_us
from spanfold.language.topics import SERVICES
from spanfold.producers.publisher import TelemetryPublisher

FOLDER: Final = Path(os.environ["APPENDER_FOLDER"])
BEYOND: Final = 1 << 60
"""No aggregate comes to this version: reading from it tells the version and no events."""


class Appending:
    """Several tasks that append one after the other each."""

    def __init__(self, store: KafkaEventStore, publisher: TelemetryPublisher, plan: dict[str, Any]) -> None:
        self._store, self._publisher, self._plan = store, publisher, plan
        self._rng = random.Random(plan["seed"])
        self._diary = os.open(FOLDER / "diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._done = 0

    async def run(self) -> None:
        append = self._naively if self._plan["naive"] else self._append
        while self._done < self._plan["least"] or not (FOLDER.parent / "stop").exists():
            aggregate = self._rng.choice(self._plan["aggregates"])
            try:
                expected = (await self._store.get_events(SERVICES, aggregate, BEYOND)).version
            except StoreUnavailable:
                continue
            event = ServiceHealthChanged(
                aggregate_id=aggregate,
                occurred_at=now_us(),
                source="test",
                status="healthy",
                event_id=uuid.uuid4().bytes,
            )
            self._write({"try": event.event_id.hex(), "aggregate": aggregate, "expected": expected})
            await append(event, expected)
            self._done += 1

    async def _append(self, event: ServiceHealthChanged, expected: int) -> None:
        """Append it; while its outcome is unknown, ask for it or append the very same again, as chance will have it."""
        known = await self._appended(event, expected)
        while not known:
            ask = self._asked(event) if self._rng.random() < 0.5 else self._appended(event, expected)
            known = await ask

    async def _appended(self, event: ServiceHealthChanged, expected: int) -> bool:
        """Whether the log has answered."""
        try:
            self._tell(event, await self._store.append_event(event, expected))
        except Conflict as conflict:
            self._write({"told": event.event_id.hex(), "verdict": "conflict", "actual": conflict.actual})
        except OutcomeUnknown:
            self._write({"told": event.event_id.hex(), "verdict": "unknown"})
            return False
        return True

    async def _asked(self, event: ServiceHealthChanged) -> bool:
        """Whether the log knows what became of it."""
        try:
            found = await self._store.outcome_of(SERVICES, event.aggregate_id, event.event_id)
        except Conflict as conflict:
            self._write({"told": event.event_id.hex(), "verdict": "conflict", "actual": conflict.actual, "asked": True})
            return True
        except OutcomeUnknown:
            return False
        if found is None:
            self._write({"told": event.event_id.hex(), "verdict": "none"})
            return False
        self._tell(event, found, asked=True)
        return True

    async def _naively(self, event: ServiceHealthChanged, version: int) -> None:
        try:
            await self._publisher.apublish(event)
        except LogUnavailable:
            return
        self._write({"told": event.event_id.hex(), "verdict": "accepted", "version": version + 1})

    def _tell(self, event: ServiceHealthChanged, appended: Appended, **more: Any) -> None:
        position = appended.position
        line = {"version": appended.version, "partition": position.partition, "offset": position.offset}
        self._write({"told": event.event_id.hex(), "verdict": "accepted", **line, **more})

    def _write(self, line: dict[str, Any]) -> None:
        # one write: kill -9 leaves it whole or out
        os.write(self._diary, json.dumps(line).encode() + b"\n")


async def main() -> None:
    """Append until told to stop."""
    plan = json.loads((FOLDER / "plan").read_text())
    async with (
        event_store(settings(), timeout_s=plan["timeout_s"]) as store,
        TelemetryPublisher(settings(), linger_ms=1, message_timeout_s=plan["timeout_s"]) as publisher,
    ):
        appending = Appending(store, publisher, plan)
        await asyncio.gather(*(appending.run() for _ in range(plan["tasks"])))


if __name__ == "__main__":
    asyncio.run(main())
