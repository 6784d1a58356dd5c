"""The guard against parking a whole topic: a wrong schema, or an old version of spanfold, is not a poison record."""

from typing import Final

from projections.preparing import Prepared
from spanfold.errors import Misconfigured

RECENT_RECORDS: Final = 10_000
FEWEST_RECORDS: Final = 1_000
"""Before so many records of a topic are seen, nothing is said about them."""


class ParkedShare:
    """How many of a topic's last RECENT_RECORDS records, as this process has met them, can't be folded."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._recent: dict[str, bytes] = {}

    def admit(self, prepared: Prepared) -> None:
        """Count the batch's records. Misconfigured when a greater share than `limit` of those seen lately would be parked:
        then the batch is not to be committed.
        """
        batch = prepared.judged.batch
        flags = bytearray(len(batch))
        for index in prepared.parked:
            flags[index] = 1
        recent = (self._recent.get(batch.topic.name, b"") + flags)[-RECENT_RECORDS:]
        self._recent[batch.topic.name] = recent
        parked = recent.count(1)
        if prepared.parked and len(recent) >= FEWEST_RECORDS and parked > self._limit * len(recent):
            raise Misconfigured(
                f"{parked} of the last {len(recent)} records of {batch.topic.name} can't be folded, a greater share than "
                f"{self._limit:g} (SPANFOLD_PARKED_SHARE_LIMIT): this worker stops rather than park the topic. "
                f"Nothing of partition {batch.partition} from offset {batch.start} on was committed; there "
                f"{prepared.parked[min(prepared.parked)]}. Upgrade spanfold, or repair the publisher; to park such records "
                "all the same, raise the limit."
            )
