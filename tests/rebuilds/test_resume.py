"""A projection that was suspended catches up with the log; a rebuild meets its fault too, and says so."""

import pytest

from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.suspension import ProjectionFailed
from spanfold.stream_processors.rebuild import rebuild as steps
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from spanfold.stream_processors.rebuild.resume import resume
from tests.support.databases import Ledger
from tests.support.failing import Own, reason, runs
from tests.support.generations import at_work, leftovers
from tests.support.publishing import publish_all
from tests.support.stores import commit, rows_of, with_second
from tests.support.ten_traces import EVENTS
from tests.support.topics import log_ends

OWN_LINE = r"second failed at spanfold\.traces/\d@7: KeyError: 'sku' \(failing\.py:\d+, in fold\)"

pytestmark = pytest.mark.usefixtures("topics")


class Log:
    """The ten traces on a real topic, judged by a store without workers."""

    def __init__(self, settings: Settings, ledger: Ledger, store: Store) -> None:
        publish_all(settings, EVENTS)
        self._settings, self._ledger, self._store = settings, ledger, store
        self._topic = ensure_topics(settings, [TRACES])[TRACES.name]

    def commit_all(self) -> list[Outcome]:
        """Judge and fold what has not been yet."""
        starts = self._store.start_offsets(self._ledger.execute(self._store.checkpoints.encode()))
        ranges = [
            OffsetRange(self._topic, partition, starts[TRACES.name, partition], end)
            for partition, end in log_ends(self._settings).items()
        ]
        with LogReader(self._settings) as reader:
            return [outcome for one in reader.batches(ranges) for outcome in commit(self._ledger, self._store, one)]


def test_resume_folds_what_was_missed_and_hands_it_back(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own()
    store = Store(with_second(stack_settings, own))
    log = Log(stack_settings, ledger, store)
    log.commit_all()
    assert reason(ledger).startswith("second failed at spanfold.traces/")
    with at_work(stack_settings, own) as context:
        with pytest.raises(ProjectionFailed, match=OWN_LINE):
            resume(context, 0)
        assert reason(ledger)
        own.repaired = True
        resumed = resume(context, 0)
        assert (resumed.projection, resumed.generation) == ("second", 1)
        assert resumed.records > 0
        with pytest.raises(Misconfigured, match="second is not suspended"):
            resume(context, 0)
    assert (reason(ledger), log.commit_all()) == ("", [])
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")


def test_a_merge_that_takes_long_is_resumed_under_a_larger_limit(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own(runs("SELECT pg_sleep(0.6)"))
    log = Log(stack_settings, ledger, Store(with_second(stack_settings, own), merge_timeout_s=0.2))
    log.commit_all()
    assert "a statement took longer than 0.2 s" in reason(ledger)
    impatient = stack_settings.model_copy(update={"merge_timeout_s": 0.2})
    with at_work(impatient, own) as context, pytest.raises(ProjectionFailed, match=r"longer than 0\.2 s"):
        resume(context, 0)
    with at_work(stack_settings, own) as context:
        resume(context, 0)
    assert (reason(ledger), log.commit_all()) == ("", [])
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")


def test_a_generation_at_rest_is_not_resumed_but_dropped(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own()
    with_second(stack_settings, own)
    ledger.execute(
        "UPDATE spanfold_core.generations SET state = 'previous', suspended_at = now(), suspended_because = 'an erasure' "
        "WHERE projection = 'second'"
    )
    with (
        at_work(stack_settings, own) as context,
        pytest.raises(Misconfigured, match=r"generation 1 of second .* `spanfold projections drop-previous second`"),
    ):
        resume(context, 0)


def test_a_rebuild_ends_with_the_projections_own_line(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own()
    log = Log(stack_settings, ledger, Store(with_second(stack_settings, own)))
    log.commit_all()
    with at_work(stack_settings, own) as context:
        with pytest.raises(ProjectionFailed, match=OWN_LINE):
            steps.rebuild(context, 0)
        assert reason(ledger)
        steps.abort(context)
        # the part before the fault is as it must be
        assert steps.verify(context, 0).equal
        own.repaired = True
        steps.rebuild(context, 0)
    assert (reason(ledger), log.commit_all()) == ("", [])
    assert rows_of(ledger, "second_g2") == rows_of(ledger, "traces_g1")


def test_verify_and_as_of_end_with_the_projections_own_line(ledger: Ledger, stack_settings: Settings) -> None:
    own = Own()
    own.repaired = True
    log = Log(stack_settings, ledger, Store(with_second(stack_settings, own)))
    log.commit_all()
    own.repaired = False
    with at_work(stack_settings, own) as context:
        with pytest.raises(ProjectionFailed, match=OWN_LINE):
            steps.verify(context, 0)
        with pytest.raises(ProjectionFailed, match=OWN_LINE):
            steps.as_of(context, "then", context.judged(), 0)
    assert (reason(ledger), leftovers(ledger)["generations"]) == ("", [])
