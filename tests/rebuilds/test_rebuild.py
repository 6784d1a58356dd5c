"""A rebuild makes the same tables again, beside the live ones, and swaps them in."""

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.errors import Misconfigured
from spanfold.language.progress import NullProgress
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, at_work, leftovers, states
from tests.support.publishing import publish
from tests.support.tables import rows
from tests.support.waiting import until
from tests.support.workers import Worker, folded

pytestmark = pytest.mark.usefixtures("forkserver")


def test_a_rebuilt_projection_has_the_rows_of_the_live_one_and_goes_on(
    stack_settings: Settings, ledger: Ledger, folding: Worker
) -> None:
    before = rows(ledger)
    for name in installed():
        with at_work(stack_settings, name) as context:
            result = rebuilding.rebuild(context, 2)
        assert result.parity
        assert all(each.equal for each in result.parity), result.parity
    assert rows(ledger) == before
    assert [state for _, _, state in states(ledger)] == ["previous", "live"] * len(installed())

    publish(stack_settings, 1000, seed=2)
    folded(ledger, stack_settings, folding)
    later = rows(ledger)
    assert later != before
    with at_work(stack_settings) as context:
        result = rebuilding.rollback(context, 2)
    assert result.records > 0
    assert rows(ledger) == later
    assert ("traces", 1, "live") in states(ledger)
    shown = json.loads(command(stack_settings, "projections", "--json").stdout)
    (live,) = (each for each in shown if (each["projection"], each["state"]) == ("traces", "live"))
    ends = ends_of_log(stack_settings)
    assert live["next_offsets"] == {TRACES.name: [ends[TRACES.name, at] for at in range(stack_settings.partitions)]}
    assert leftovers(ledger) == NOTHING


def test_a_process_that_starts_during_the_swap_does_not_point_the_views_back(
    stack_settings: Settings, ledger: Ledger, topics: dict[str, TopicOnBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = threading.Thread(
        target=lifecycle.prepare, args=(stack_settings.postgres_dsn, topics.values(), installed()), daemon=True
    )
    fold_rest = GenerationLoader.fold_rest

    def waits() -> Any:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        return ledger.execute(query).fetchall()

    def start_in_the_swap(self: GenerationLoader, *arguments: Any) -> None:
        if ("traces", 2, "following") in states(ledger):
            starting.start()
            until(waits, "the starting process waits", lambda: starting.is_alive())
        fold_rest(self, *arguments)

    monkeypatch.setattr(GenerationLoader, "fold_rest", start_in_the_swap)
    publish(stack_settings, 300)
    with at_work(stack_settings) as context:
        rebuilding.rebuild(context, 1)
    starting.join(60)
    assert not starting.is_alive()
    shown = ledger.execute("SELECT pg_get_viewdef('spanfold.traces')").fetchone()
    assert shown
    assert "traces_g2.traces" in shown[0]
    assert "traces_g1." not in shown[0]


def test_a_rollback_that_was_killed_can_be_ended_or_taken_back(
    stack_settings: Settings, ledger: Ledger, folding: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_work(stack_settings) as context:
        rebuilding.rebuild(context, 1)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    before = rows(ledger)
    for step in ("load", "wait_for_old_snapshots"):
        with monkeypatch.context() as patched, at_work(stack_settings) as context:
            patched.setattr(rebuilding, step, killed)
            with pytest.raises(KeyboardInterrupt):
                rebuilding.rollback(context, 1)
        with at_work(stack_settings) as context:
            rebuilding.abort(context)
        assert [state for name, _, state in states(ledger) if name == "traces"] == ["previous", "live"]
    with monkeypatch.context() as patched, at_work(stack_settings) as context:
        patched.setattr(rebuilding, "wait_for_old_snapshots", killed)
        with pytest.raises(KeyboardInterrupt):
            rebuilding.rollback(context, 1)
    with at_work(stack_settings) as context, pytest.raises(Misconfigured, match="--abort"):
        rebuilding.verify(context, 1)
    with at_work(stack_settings) as context:
        rebuilding.rollback(context, 1)
    assert [state for name, _, state in states(ledger) if name == "traces"] == ["live", "previous"]
    assert rows(ledger) == before


def test_a_rebuild_after_a_killed_rollback_folds_the_log_anew(
    stack_settings: Settings, ledger: Ledger, folding: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_work(stack_settings) as context:
        rebuilding.rebuild(context, 1)
    before = rows(ledger)
    ledger.execute("DELETE FROM traces_g1.spans")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, at_work(stack_settings) as context:
        patched.setattr(rebuilding, "wait_for_old_snapshots", killed)
        with pytest.raises(KeyboardInterrupt):
            rebuilding.rollback(context, 1)
    assert ("traces", 1, "following") in states(ledger)
    with at_work(stack_settings) as context:
        ahead = rebuilding.preview(context)
        result = rebuilding.rebuild(context, 1)
    assert ahead.unfinished is None
    assert result.records == sum(ahead.offsets.values()) > 0
    assert all(each.equal for each in result.parity), result.parity
    assert [at for at in states(ledger) if at[0] == "traces"] == [("traces", 2, "previous"), ("traces", 3, "live")]
    assert rows(ledger) == before


def test_what_people_built_on_a_generation_is_not_dropped_with_it(
    stack_settings: Settings, ledger: Ledger, folding: Worker
) -> None:
    ledger.execute("CREATE VIEW public.mine AS SELECT trace_id FROM traces_g1.traces")
    for _ in range(2):
        with at_work(stack_settings) as context:
            rebuilding.rebuild(context, 1)
    assert [state for name, _, state in states(ledger) if name == "traces"] == ["previous", "previous", "live"]
    with at_work(stack_settings) as context, pytest.raises(Misconfigured, match=r"view mine depends on"):
        context.drop(context.generations()[0])
    assert ledger.execute("SELECT count(*) FROM public.mine").fetchone() != (0,)


class Ended(Exception):
    pass


class UntilIdle(NullProgress):
    """Ends what it listens to where that says that it may be ended."""

    def step(self, text: str) -> None:
        if "end this with Ctrl-C" in text:
            raise Ended(text)


def test_whoever_follows_an_idle_log_hears_that_it_may_be_ended(
    stack_settings: Settings, ledger: Ledger, topics: dict[str, TopicOnBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "IDLE_S", 0.1)
    with at_work(stack_settings) as context, pytest.raises(Ended, match="nothing has arrived in the log"):
        rebuilding.follow(replace(context, progress=UntilIdle()))
