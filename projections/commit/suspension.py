"""A projection that fails is suspended alone: the journal, the other projections and the worker go on.

Each merge runs in a savepoint. What its projection raises decides:

| what was raised                                                     | what happens                                         |
|---------------------------------------------------------------------|------------------------------------------------------|
| an error that may pass (spanfold.postgres.errors), a lost connection | the whole batch is tried again                       |
| by spanfold's own projection: SQLSTATE class 22, 23 or 54           | the record is parked, once it stands alone           |
| anything else, also by `fold`, also a merge past its time limit     | the projection is suspended, and the batch commits   |

A suspended generation keeps its state and its tables. Workers neither lock nor fold it, so it delays nobody; it holds its
log (projections/retention/log_readers.py), an erasure takes its trace out of it at once, and `spanfold resume` folds what it has
missed. A rebuild meets the same errors: it ends with them.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from psycopg import Cursor, Rollback, errors

from spanfold.language.errors import SpanfoldError
from spanfold.language.positions import Position
from spanfold.postgres.errors import is_transient
from spanfold.postgres.texts import storable
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.journal import CORE
from spanfold.projections.facts import Fact
from spanfold.projections.projection import Projection

REFUSED_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that one record's values can cause: data exception, integrity violation, program limit exceeded."""

MERGE_TIMEOUT_S: Final = 30.0
"""Default limit of each statement of somebody's own projection; see Settings.merge_timeout_s."""


CANCELLED: Final = "user request"
"""What Postgres says when a statement was cancelled by somebody, and not by its time limit; in English, see sessions.py."""

THEN: Final = "; after that, "
"""Between the first reason of a suspension and its last one."""

LONGEST_MESSAGE: Final = 1000
"""Characters of an error that are kept; it may quote whole records."""


class ProjectionFailed(SpanfoldError):
    """The code or the tables of a projection fail on a record. The message names the projection, the record and the line."""

    exit_code = 3


@contextmanager
def limited(cursor: Cursor[Any], projection: Projection, timeout_s: float) -> Iterator[None]:
    """Within the savepoint of a merge: a statement of somebody else's projection that takes longer than `timeout_s` raises
    TimeoutError. It waits half as long for a lock; that error may pass. Deferred constraints are checked at the end.
    """
    if is_own(projection):
        yield
        return
    before = cursor.execute(TIMEOUTS).fetchone()
    milliseconds = max(2, int(timeout_s * 1000))
    cursor.execute(SET_TIMEOUTS, (f"{milliseconds}ms", f"{milliseconds // 2}ms"))
    began = time.monotonic()
    try:
        yield
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except errors.QueryCanceled as error:
        if time.monotonic() - began < timeout_s or CANCELLED in str(error):
            raise
        raise TimeoutError(f"a statement took longer than {timeout_s:g} s (SPANFOLD_MERGE_TIMEOUT_S)") from error
    cursor.execute(SET_TIMEOUTS, before)


def is_own(projection: Projection) -> bool:
    """Whether the projection is one of spanfold's."""
    return _module(projection).partition(".")[0] == "spanfold"


def is_its_own_fault(error: Exception, projection: Projection, cursor: Cursor[Any]) -> bool:
    """Whether the projection is to be suspended for what it raised; else the caller raises it again."""
    if cursor.connection.broken or cursor.connection.closed:
        return False
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is None:
        return True
    if is_transient(error):
        return False
    return not (is_own(projection) and sqlstate[:2] in REFUSED_CLASSES)


def failure_of(projection: Projection, error: Exception, where: str) -> ProjectionFailed:
    """The failure in one line: `acme_stock failed at spanfold.traces/3@4711: KeyError: 'sku' (stock.py:88, in fold)`."""
    words = storable(" ".join(_message(error).split()), LONGEST_MESSAGE)
    return ProjectionFailed(
        f"{projection.name} failed at {where}: {type(error).__name__}: {words} ({_line(projection, error)})"
    )


def _message(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the class may be the projection's
        return "(its message can't be read)"


@contextmanager
def failures_named(projection: Projection, where: str, cursor: Cursor[Any]) -> Iterator[None]:
    """Raises ProjectionFailed for what is the projection's own fault."""
    try:
        yield
    except Exception as error:  # the projection's code may raise anything
        if not is_its_own_fault(error, projection, cursor):
            raise
        raise failure_of(projection, error, where) from error


def _line(projection: Projection, error: Exception) -> str:
    """The innermost line of the projection's own package that the error came through; of any code if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    package = sys.modules.get(_module(projection))
    folder = str(Path(package.__file__).parent) if package is not None and package.__file__ else ""
    own = [frame for frame in frames if folder and frame.filename.startswith(folder)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"


def _module(projection: Projection) -> str:
    return str(getattr(projection, "__name__", type(projection).__module__))


def position_of(batch: Batch, facts: Sequence[Fact], attempt: Callable[[Sequence[Fact]], None]) -> str:
    """Where the failure lies: the record with which `attempt` begins to fail; the batch, if no record makes a difference."""
    if _fails(attempt, []) or not _fails(attempt, facts):
        return f"{batch.topic.name}/{batch.partition}, offsets {batch.start} to {batch.end - 1}"
    low, high = 0, len(facts)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fails(attempt, facts[:middle]) else (middle, high)
    return str(Position(batch.topic.name, batch.partition, facts[high - 1][0]))


def _fails(attempt: Callable[[Sequence[Fact]], None], facts: Sequence[Fact]) -> bool:
    try:
        attempt(facts)
    except Exception:  # the projection's code may raise anything
        return True
    return False


@contextmanager
def undone(cursor: Cursor[Any]) -> Iterator[None]:
    """A savepoint that is rolled back at the end of the block."""
    with suppress(Rollback), cursor.connection.transaction():
        yield
        raise Rollback


def suspend(cursor: Cursor[Any], projection: str, generation: int, failure: ProjectionFailed) -> None:
    """Mark the generation; workers leave it alone from the commit of this transaction on. Of one that is suspended already the
    first reason is kept, with the last one behind it.
    """
    cursor.execute(SUSPEND, {"because": str(failure), "then": THEN, "projection": projection, "generation": generation})


TIMEOUTS: Final = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"

SET_TIMEOUTS: Final = "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)"

SUSPEND: Final = f"""
UPDATE {CORE}.generations
   SET suspended_at = coalesce(suspended_at, clock_timestamp()),
       suspended_because = coalesce(split_part(suspended_because, %(then)s, 1) || %(then)s, '') || %(because)s
 WHERE projection = %(projection)s AND generation = %(generation)s
"""
