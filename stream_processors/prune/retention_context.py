"""Where a pruning works: the installation, what its checkpoints say, and what the broker says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.projection import Projection
from spanfold.projections.retention.log_readers import Holder, latest
from spanfold.stream_processors.prune.parts import Bound, words_of
from spanfold.stream_processors.rebuild.log_reader import LogReader

Watermarks = Mapping[tuple[str, int], tuple[int, int]]
"""By (topic, partition): the first offset that the log has, and the one after its last."""


@dataclass(frozen=True, slots=True)
class Site:
    """An installation at a moment. `busy` are projections that somebody is at work on, with who that is.

    The ends of the log were asked for after `seen`, and the holders read after that: so whoever stands at an end will only
    meet records that the log had after the last one that had been seen.
    """

    settings: Settings
    control: psycopg.Connection[Any]
    topics: Mapping[str, TopicOnBroker]
    projections: Mapping[str, Projection]
    busy: Mapping[str, str]
    reader: LogReader
    seen: Sequence[Holder]
    watermarks: Watermarks
    holders: Sequence[Holder]

    @property
    def now(self) -> int | None:
        """The log time of the last record that was judged on any topic, µs since 1970; no clock is asked."""
        return latest(self.seen)

    def reached(self, holder: Holder) -> int | None:
        """The log time before which this holder will meet no record any more; None if that is not known."""
        end = self.watermarks[holder.topic, holder.partition][1]
        times = [holder.log_time]
        if holder.next_offset >= end:
            times.append(self.now)
        return max((each for each in times if each is not None), default=None)

    def slowest(self, found: Sequence[Holder]) -> Bound | None:
        """Who of these has come least far in log time (µs); None when there is nobody."""
        bounds = []
        for each in found:
            reached = self.reached(each)
            where = f"{each} in {each.topic}[{each.partition}]"
            if reached is None:
                bounds.append(Bound(-(1 << 62), f"{where}, and has met no record there yet"))
            else:
                bounds.append(Bound(reached, f"{where}, which is of {words_of(reached)}"))
        return min(bounds, key=lambda each: each.at, default=None)

    def offset_at(self, topic: str, partition: int, us: int) -> int:
        """The first offset that the broker had at this time or later; the end where there is none."""
        on_broker = (self.topics[topic].name, partition)
        offset = self.reader.offsets_for_times({on_broker: max(us, 0) // 1000})[on_broker]
        return self.watermarks[topic, partition][1] if offset is None else offset
