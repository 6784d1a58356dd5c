"""When snapshots are due, and how settings say it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from spanfold.application.aggregates import TraceAggregate
from spanfold.cli.app import app
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings, settings
from spanfold.language.snapshot_policy import AT_ONCE, US_PER_S, SnapshotPolicy
from spanfold.stream_processors.snapshots.app import foldings

DAY = 86_400 * US_PER_S
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


@pytest.mark.parametrize("value", ["inf", "nan", "1e400", "-1", "3153600001"])
@pytest.mark.parametrize("name", ["QUIET_S", "EVERY_RECORDS", "AT_LEAST_EVERY_S"])
def test_what_no_time_can_be_reckoned_with_is_refused_and_never_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SPANFOLD_SNAPSHOT_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "to 3153600000, and that last one for never" in str(refused.value) or name == "EVERY_RECORDS"
    monkeypatch.delenv(f"SPANFOLD_SNAPSHOT_{name}")
    of_json = {"inf": "Infinity", "nan": "NaN"}.get(value, value)
    monkeypatch.setenv("SPANFOLD_SNAPSHOT_POLICIES", f'{{"trace": {{"{name.lower()}": {of_json}}}}}')
    with pytest.raises(ValidationError, match=f"{name.lower()} is .* to 3153600000, and that last one for never"):
        Settings()


def test_what_is_never_due_is_not_due_in_a_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET_S", "EVERY_RECORDS", "AT_LEAST_EVERY_S"):
        monkeypatch.setenv(f"SPANFOLD_SNAPSHOT_{name}", "3153600000")
    policy = Settings().snapshot_policy
    assert policy.due_at(closed=True, records=10**9, first_log_time=NOW, last_event_at=NOW) > NOW + 90 * 365 * DAY


def test_the_worker_says_which_setting_is_wrong() -> None:
    settings.cache_clear()
    done = CliRunner().invoke(app, ["worker", "snapshots"], env={"SPANFOLD_SNAPSHOT_QUIET_S": "inf"})
    assert isinstance(done.exception, Misconfigured), repr(done.exception)
    assert "SPANFOLD_SNAPSHOT_QUIET_S: " in str(done.exception)
