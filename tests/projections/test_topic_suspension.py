"""A topic whose records can't be judged any further is suspended alone, and resumed where it stopped."""

import pytest

from spanfold.application.aggregates import TraceAggregate
from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import TRACES
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.topic_suspension import (
    ParkedShareExceeded,
    TopicSuspended,
    count_parked,
    suspend_topic,
)
from spanfold.projections.generations.topic_resumption import LogGap, resume_topic
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.stores import Forgetful, commit
from tests.support.strategies import batch
from tests.support.ten_traces import EVENTS, LOG
from tests.support.trace_rows import checkpoints, shown, told, verdicts

NAME = TRACES.name
UNREADABLE = PoisonRecord(ParkedReason.UNREADABLE, "?")


def suspended(ledger: Ledger) -> dict[str, str]:
    return dict(
        ledger.execute("SELECT name, suspended_because FROM spanfold.suspensions WHERE kind = 'topic'").fetchall()
    )


def counts(good: int, bad: int, partition: int = 0, start: int = 0) -> tuple[Batch, int, dict[int, PoisonRecord]]:
    """As much of a batch as is counted."""
    records = good + bad
    one = Batch(
        TRACES, partition, 4, start, start + records, range(start, start + records), [], [], [], [],
    )  # fmt: skip
    return one, records, dict.fromkeys(range(bad), UNREADABLE)


@pytest.mark.parametrize(
    ("limit", "batches", "exceeded"),
    [
        (0.5, [(0, 999)], False),
        (0.5, [(0, 1000)], True),
        (0.5, [(500, 500)], False),
        (0.5, [(499, 501)], True),
        (0.5, [(0, 600), (10_000, 0), (4_000, 5_000)], False),
        (0.5, [(10_000, 0), (0, 5_000), (0, 2)], True),
        (0.5, [(0, 999), (1, 0)], False),
        (0.1, [(800, 201)], True),
        (1.0, [(0, 20_000)], False),
    ],
)
def test_the_share_of_the_recent_records_decides(
    ledger: Ledger, limit: float, batches: list[tuple[int, int]], exceeded: bool
) -> None:
    assert [is_exceeded(ledger, limit, good, bad) for good, bad in batches][-1] == exceeded


def is_exceeded(ledger: Ledger, limit: float, good: int, bad: int, partition: int = 0) -> bool:
    try:
        with ledger.cursor() as cursor:
            count_parked(cursor, *counts(good, bad, partition), limit)
    except ParkedShareExceeded:
        return True
    return False


def test_all_partitions_of_a_topic_are_counted_together(ledger: Ledger) -> None:
    assert not is_exceeded(ledger, 0.5, 0, 999)
    assert is_exceeded(ledger, 0.5, 0, 1, partition=1)
    assert not is_exceeded(ledger, 0.5, 2000, 0, partition=2)
    assert not is_exceeded(ledger, 0.5, 0, 1, partition=3)


def test_a_record_that_waits_behind_another_is_not_counted(ledger: Ledger) -> None:
    one, fresh, parked = counts(0, 2000)
    behind = dict.fromkeys(parked, PoisonRecord(ParkedReason.BEHIND, "?"))
    with ledger.cursor() as cursor:
        count_parked(cursor, one, fresh, behind, 0.5)
        assert ledger.execute("SELECT records, parked FROM spanfold_core.parked_shares").fetchall() == [(2000, 0)]


def log_to(end: int, first: int = 0) -> dict[int, tuple[int, int]]:
    """The bounds of a log that has records in partition 0 only."""
    return {0: (first, end), 1: (0, 0), 2: (0, 0), 3: (0, 0)}


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that can't read spans, and suspends a topic after few of them."""
    from spanfold.projections.commit import topic_suspension
    from spanfold.schemas.codec import Codec

    monkeypatch.setattr(topic_suspension, "FEWEST_RECORDS", 10)
    return Store(installed(), Codec(Forgetful()), parked_share_limit=0.2)


def test_a_suspended_topic_stands_still_and_others_go_on(ledger: Ledger, forgetful: Store) -> None:
    commit(ledger, forgetful, batch(LOG[:4]))
    with pytest.raises(
        TopicSuspended, match=r"^spanfold\.traces is suspended: \d+ of the last 16 records of spanfold\.tr"
    ):
        commit(ledger, forgetful, batch(LOG[4:16]))
    assert "spanfold.traces/0@5 is unknown_schema: " in suspended(ledger)[NAME]
    assert (set(verdicts(ledger).values()), checkpoints(ledger)) == ({"accepted"}, {4})
    # everybody reads the mark, whatever the batch
    with pytest.raises(TopicSuspended):
        commit(ledger, Store(installed()), batch(LOG[4:5]))
    resume_topic(ledger, NAME, log_to(40), park=False, accept_loss=False)
    assert suspended(ledger) == {}
    commit(ledger, Store(installed(), parked_share_limit=0.4), batch(LOG[4:]))
    assert sum(verdict == "accepted" for verdict in verdicts(ledger).values()) == len(LOG)


def test_resumed_without_more_it_is_suspended_again_and_with_park_its_records_are_parked(
    ledger: Ledger, forgetful: Store
) -> None:
    for _ in range(2):
        with pytest.raises(TopicSuspended):
            commit(ledger, forgetful, batch(LOG[:20]))
        resume_topic(ledger, NAME, log_to(20), park=False, accept_loss=False)
    with pytest.raises(TopicSuspended):
        commit(ledger, forgetful, batch(LOG[:20]))
    resume_topic(ledger, NAME, log_to(20), park=True, accept_loss=False)
    (outcome,) = commit(ledger, forgetful, batch(LOG[:20]))
    assert outcome.parked == {"unknown_schema": 10}
    # what came later is no longer permitted
    with pytest.raises(TopicSuspended):
        commit(ledger, forgetful, batch(LOG[20:]))


def test_only_what_is_suspended_can_be_resumed(ledger: Ledger) -> None:
    with pytest.raises(Misconfigured, match=r"spanfold\.traces is not suspended"):
        resume_topic(ledger, NAME, log_to(0), park=False, accept_loss=False)


def test_a_loss_is_accepted_once_and_shown(ledger: Ledger) -> None:
    store = Store(installed())
    commit(ledger, store, batch(LOG[:5]))
    suspend_topic(ledger, NAME, "the log has lost records")
    bounds = log_to(40, first=12)
    with pytest.raises(
        Misconfigured, match=r"lost records: spanfold\.traces/0 from 5 to 11 for journal; .* for traces\. Re"
    ):
        resume_topic(ledger, NAME, bounds, park=False, accept_loss=False)
    assert suspended(ledger)
    gaps = resume_topic(ledger, NAME, bounds, park=False, accept_loss=True)
    assert gaps == [LogGap(NAME, 0, "journal", 0, 5, 12), LogGap(NAME, 0, "traces", 1, 5, 12)]
    assert ledger.execute("SELECT projection, from_offset, to_offset FROM spanfold.log_gaps").fetchall() == [
        ("journal", 5, 12), ("traces", 5, 12),
    ]  # fmt: skip
    commit(ledger, store, batch(LOG[12:]))
    assert shown(ledger) == told(EVENTS[:5] + EVENTS[12:])


def test_what_states_of_another_fold_version_lack_is_no_loss(ledger: Ledger) -> None:
    commit(ledger, Store(installed()), batch(LOG[:20]))
    ledger.execute(
        "INSERT INTO spanfold_core.checkpoints (topic, partition, projection, generation, next_offset) "
        "VALUES (%s, 0, 'snapshots', 99, 3)",
        [NAME],
    )
    suspend_topic(ledger, NAME, "most of it can't be read")
    assert resume_topic(ledger, NAME, log_to(40, first=12), park=False, accept_loss=False) == []
    assert not suspended(ledger)


def test_what_states_lack_is_accepted_while_verdicts_go_on(ledger: Ledger) -> None:
    commit(ledger, Store(installed()), batch(LOG[:5]))
    version = TraceAggregate.fold_version
    ledger.execute(
        "INSERT INTO spanfold_core.checkpoints (topic, partition, projection, generation, next_offset) "
        "VALUES (%s, 0, 'snapshots', %s, 3)",
        [NAME, version],
    )
    bounds = log_to(4, first=12)  # the journal's records are in memory somewhere, or the log has grown since
    with pytest.raises(Misconfigured, match="not suspended"):
        resume_topic(ledger, NAME, bounds, park=False, accept_loss=False)
    gaps = resume_topic(ledger, NAME, bounds, park=False, accept_loss=True)
    assert gaps == [LogGap(NAME, 0, "snapshots", version, 3, 12)]
    assert ledger.execute(
        "SELECT next_offset FROM spanfold.checkpoints WHERE topic = %s AND partition = 0 AND projection = 'journal'",
        [NAME],
    ).fetchone() == (5,)
    with pytest.raises(Misconfigured, match="not suspended"):
        resume_topic(ledger, NAME, bounds, park=False, accept_loss=True)


def test_a_log_that_ends_before_the_tables_is_never_gone_on_with(ledger: Ledger) -> None:
    commit(ledger, Store(installed()), batch(LOG))
    suspend_topic(ledger, NAME, "the log has lost records")
    with pytest.raises(Misconfigured, match=r"/0 holds offsets 0 to 7, journal stands at 40: the log would give"):
        resume_topic(ledger, NAME, log_to(7), park=False, accept_loss=True)
    assert suspended(ledger)
    assert checkpoints(ledger) == {40}
