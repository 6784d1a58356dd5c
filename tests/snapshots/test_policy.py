"""When snapshots are due, and how settings say it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spanfold.aggregates import TraceAggregate
from spanfold.errors import Misconfigured
from spanfold.settings import Settings
from spanfold.snapshot_policy import AT_ONCE, US_PER_S, SnapshotPolicy
from stream_processors.snapshots.app import foldings

NOW = 1_795_000_000_000_000
times = st.integers(0, NOW * 2)


@given(first=times, last=times, records=st.integers(1, 2000), closed=st.booleans())
def test_what_comes_first_decides(first: int, last: int, records: int, closed: bool) -> None:
    policy = SnapshotPolicy(quiet_s=60, every_records=1000, at_least_every_s=3600)
    due = policy.due_at(closed=closed, records=records, first_log_time=first, last_event_at=last)
    quiet, at_least = last + 60 * US_PER_S, first + 3600 * US_PER_S
    assert due == (AT_ONCE if records >= 1000 else min(quiet, at_least) if closed else at_least)


def test_an_aggregates_own_policy_changes_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANFOLD_SNAPSHOT_EVERY_RECORDS", "7")
    monkeypatch.setenv("SPANFOLD_SNAPSHOT_POLICIES", '{"trace": {"quiet_s": 1}}')
    policies = {each.aggregate.__name__: each.policy for each in foldings(Settings())}
    assert policies[TraceAggregate.__name__] == SnapshotPolicy(quiet_s=1, every_records=7)
    assert policies["ServiceAggregate"] == SnapshotPolicy(every_records=7)


def test_what_nobody_knows_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANFOLD_SNAPSHOT_POLICIES", '{"trace": {"quiet": 1}}')
    with pytest.raises(ValidationError, match="'quiet_s', 'every_records' or 'at_least_every_s'"):
        Settings()
    monkeypatch.setenv("SPANFOLD_SNAPSHOT_POLICIES", '{"tracer": {"quiet_s": 1}}')
    with pytest.raises(
        Misconfigured, match="SPANFOLD_SNAPSHOT_POLICIES names tracer: there are metric_series, service, trace"
    ):
        foldings(Settings())
