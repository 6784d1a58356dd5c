"""Who decides the verdicts that depend on the records before: the topic's journal, if it has one."""

from collections.abc import Sequence
from typing import Any, Protocol

from psycopg import Connection, Cursor
from sqlalchemy import Table

from spanfold.language.topics import Topic, TopicKind
from spanfold.projections.commit.heads import ConditionalJournal
from spanfold.projections.commit.journal import Journal
from spanfold.projections.commit.verdicts import Judged, Rejection


class Arbiter(Protocol):
    """Accepts records in offset order and says which it rejects. `table` is its journal, `select` shows it in the view."""

    select: str

    @property
    def table(self) -> Table | None: ...

    def prepare(self, connection: Connection[Any], log_times_ms: Sequence[int]) -> None:
        """Make sure that records of these log times can be taken, in a transaction of its own."""

    def decide(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> dict[int, Rejection]:
        """Judge these records of the batch, keep the accepted ones, return the rejections by index."""


class NoJournal:
    """Of a topic whose projections find duplicates by themselves: nothing is kept, nothing rejected."""

    table: Table | None = None
    select = ""

    def prepare(self, connection: Connection[Any], log_times_ms: Sequence[int]) -> None:
        return None

    def decide(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> dict[int, Rejection]:
        return {}


def arbiter_of(topic: Topic) -> Arbiter:
    """A new arbiter for the topic; one per process and topic."""
    if topic.kind is TopicKind.CONDITIONAL:
        return ConditionalJournal(topic)
    return Journal(topic) if topic.journaled else NoJournal()
