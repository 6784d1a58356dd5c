"""The guard against parking a whole topic: a wrong schema, or an old version of spanfold, is not a poison record."""

from collections.abc import Collection, Sequence
from typing import Final

from spanfold.language.errors import Misconfigured
from spanfold.language.parking import ParkedReason
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.preparing import Prepared
from spanfold.stream_processors.worker.app import Guard

RECENT_RECORDS: Final = 10_000
FEWEST_RECORDS: Final = 1_000
"""A topic of which fewer records have been seen is not judged."""


class ParkedShare(Guard[Prepared]):
    """How many of a topic's last RECENT_RECORDS records, as this process has met them, can't be folded. Those that are parked
    because of others before them (`behind`) are not counted.
    """

    def __init__(self, limit: float) -> None:
        self._unreadable, self._refused = _Recent(limit), _Recent(limit)

    def admit(self, prepared: Prepared) -> None:
        """Count the records that can't be read. Misconfigured when a greater share than the limit of those seen lately would be
        parked: then the batch is not to be committed.
        """
        batch = prepared.batch
        if share := self._unreadable.excess(batch.topic.name, len(batch), prepared.parked.keys()):
            raise Misconfigured(
                f"{share} can't be folded: this worker stops rather than park the topic. "
                f"Nothing of partition {batch.partition} from offset {batch.start} on was committed; there "
                f"{prepared.parked[min(prepared.parked)]}. Upgrade spanfold, or repair the publisher; to park such records "
                "all the same, raise the limit."
            )

    def look_back(self, prepared: Prepared, outcomes: Sequence[Outcome]) -> None:
        """Count the records that Postgres refused, and that are parked. Misconfigured when they are too great a share."""
        batch = prepared.batch
        refused = sum(outcome.parked.get(ParkedReason.REFUSED, 0) for outcome in outcomes)
        if share := self._refused.excess(batch.topic.name, len(batch), range(refused)):
            raise Misconfigured(
                f"{share} were refused by Postgres: this worker stops rather than park the topic. "
                f"Partition {batch.partition} is committed up to offset {batch.end}. See `spanfold parked list`, "
                f"repair the tables, start the worker, and `spanfold parked retry --reason {ParkedReason.REFUSED}`; to park such "
                "records all the same, raise the limit."
            )


class _Recent:
    """Of each topic's last records, which ones were counted."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._recent: dict[str, bytes] = {}

    def excess(self, topic: str, records: int, counted: Collection[int]) -> str:
        """Count these of so many records. Returns how many of the topic's are counted when that is more than the limit, else
        nothing.
        """
        flags = bytearray(records)
        for index in counted:
            flags[index] = 1
        recent = self._recent[topic] = (self._recent.get(topic, b"") + flags)[-RECENT_RECORDS:]
        share = recent.count(1)
        if not counted or len(recent) < FEWEST_RECORDS or share <= self._limit * len(recent):
            return ""
        return (
            f"{share} of the last {len(recent)} records of {topic}, a greater share than {self._limit:g} "
            "(SPANFOLD_PARKED_SHARE_LIMIT),"
        )
