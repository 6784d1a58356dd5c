"""Kafka's records go up to what somebody still needs, partition by partition, and not one further."""

from collections.abc import Callable

import pytest

from spanfold.language.errors import Misconfigured
from spanfold.language.progress import NullProgress
from spanfold.language.topics import LOGS, METRICS, SERVICES, TRACES
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from spanfold.projections.states.rows import SNAPSHOTS
from tests.prune.installation import Place, asked, part, place, with_settings
from tests.support.commands import command
from tests.support.generations import at_work

pytestmark = pytest.mark.usefixtures("forkserver")

ALL = {TRACES.name: 0, METRICS.name: 0, LOGS.name: 0}
AT = 7
"""Where a holder stands, in a partition that has more records on either side."""

PARTITION = 1


def another_generation(old: Place, state: str, offset: int = AT) -> None:
    """A second generation of traces in this state, which stands at this offset of PARTITION and elsewhere where live does."""
    dsn = str(old.settings.postgres_dsn)
    with engine_of(dsn).begin() as connection:
        made = lifecycle.create_generation(connection, installed()["traces"], GenerationState(state))
    old.ledger.execute(
        "UPDATE spanfold_core.checkpoints c SET next_offset = l.next_offset, log_time = l.log_time"
        "  FROM spanfold_core.checkpoints l"
        " WHERE (c.projection, c.generation) = ('traces', %s) AND (l.projection, l.generation) = ('traces', 1)"
        "   AND l.partition = c.partition",
        (made.number,),
    )
    place(old.ledger, "traces", TRACES.name, PARTITION, offset, made.number)


def parked_in_log(old: Place) -> None:
    """A parked record at AT whose value was too large to keep."""
    old.ledger.execute(
        "INSERT INTO spanfold_core.parked (topic, partition, kafka_offset, reason, detail, event_type, occurred_at, log_time,"
        " payload, value_bytes, value_sha256) VALUES (%s, %s, %s, 'too_large', '', '', now(), now(), '', 9, '')",
        (TRACES.name, PARTITION, AT),
    )


HOLDERS: dict[str, tuple[Callable[[Place], None], str]] = {
    "journal": (lambda old: place(old.ledger, JOURNAL, TRACES.name, PARTITION, AT), "the journal is at 7"),
    "live": (
        lambda old: place(old.ledger, "traces", TRACES.name, PARTITION, AT), "generation traces/1 (live) is at 7",
    ),
    "following": (lambda old: another_generation(old, "following"), "generation traces/2 (following) is at 7"),
    "loading": (lambda old: another_generation(old, "loading"), "generation traces/2 (loading) is at 7"),
    "snapshot worker": (
        lambda old: place(old.ledger, SNAPSHOTS, TRACES.name, PARTITION, AT),
        "the snapshot worker (fold version 1) is at 7",
    ),
    "parked record": (parked_in_log, "the parked record spanfold.traces/1@7 has its bytes in the log alone; retry or discard it"),
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_partition_is_cut_where_its_slowest_holder_stands(old: Place, holder: str) -> None:
    stand, words = HOLDERS[holder]
    stand(old)
    ends = old.log_ends()
    parts = old.prune(log={TRACES.name: 0})
    held = part(parts, "log", TRACES.name, PARTITION)
    assert (held.records, held.before, held.held_by) == (AT, f"offset {AT}", words)
    begins = old.log_begins()
    assert begins[TRACES.name, PARTITION] == AT < ends[TRACES.name, PARTITION]
    for partition in {0, 2, 3}:
        assert AT < begins[TRACES.name, partition] <= ends[TRACES.name, partition]
    assert all(first == 0 for (topic, _), first in begins.items() if topic != TRACES.name)


def test_a_snapshot_worker_that_has_not_begun_holds_everything(old: Place) -> None:
    old.ledger.execute("DELETE FROM spanfold_core.checkpoints WHERE projection = %s", (SNAPSHOTS,))
    parts = old.prune(log=ALL)
    assert all(first == 0 for (topic, _), first in old.log_begins().items() if topic != LOGS.name)
    assert part(parts, "log", TRACES.name, 0).held_by == "the snapshot worker (fold version 1) is at 0"
    # of logs nobody takes snapshots: that retention is set for them is all that counts
    assert all(old.log_begins()[LOGS.name, partition] > 0 for partition in range(4))


def test_previous_generations_and_those_of_the_past_hold_nothing(old: Place) -> None:
    another_generation(old, "previous", 0)
    another_generation(old, "as_of", 0)
    old.prune(log={TRACES.name: 0})
    assert old.log_begins()[TRACES.name, PARTITION] > AT


def test_records_are_kept_for_their_days_by_the_log_s_own_time(old: Place) -> None:
    old.prune(log={TRACES.name: 30})
    since = "(SELECT max(log_time) - interval '30 days' FROM spanfold.checkpoints WHERE projection = 'journal')"
    journal = "FROM spanfold.journal WHERE topic = 'spanfold.traces' AND log_time"
    wanted = asked(old.ledger, f"SELECT partition, min(kafka_offset) {journal} >= {since} GROUP BY 1 ORDER BY 1")
    begins = old.log_begins()
    assert [(partition, begins[TRACES.name, partition]) for partition in range(4)] == wanted
    # the journal keeps what no setting lets go
    assert asked(old.ledger, f"SELECT count(*) {journal} < {since}") > [(0,)]


def test_a_dry_run_changes_nothing_and_says_it_all(old: Place) -> None:
    before = old.everything()
    named = {"log_retention_days": '{"spanfold.traces": 30}', "journal_retention_days": '{"spanfold.traces": 0}',
             "table_retention_days": '{"spans": 60}'}  # fmt: skip
    said = with_settings(old, named, "prune", "--dry-run")
    assert said.returncode == 0, said.stderr
    assert old.everything() == before
    for words in ("log spanfold.traces/0", "30 days before the last record", "no retention set", "log spanfold.metrics",
                  "journal spanfold.traces", "an event may come 32 days late", "table spans", "would free"):  # fmt: skip
        assert words in said.stdout, said.stdout
    print(said.stdout)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"log_retention_days": '{"traces": 1}'}, "no such topic; expected one of spanfold.logs, spanfold.metrics"),
        ({"journal_retention_days": '{"spanfold.services": 1}'}, "never deleted"),
        ({"journal_retention_days": '{"spanfold.metrics": 1}'}, "expected one of spanfold.logs, spanfold.traces"),
        ({"table_retention_days": '{"trace": 1}'}, "no such table; expected one of logs, metric_minutes"),
        ({"table_retention_days": '{"traces": 1}'}, "late events may still change any of its rows"),
        ({"table_retention_days": "spans=1"}, "expected JSON such as"),
        ({"log_retention_days": '{"spanfold.traces": -1}'}, "greater than or equal to 0"),
    ],
)
def test_a_setting_that_names_what_there_is_not_is_refused(new: Place, named: dict[str, str], words: str) -> None:
    done = with_settings(new, named, "prune")
    assert done.returncode == 3, done.stderr
    assert words in done.stderr


def test_after_the_cut_it_is_said_what_can_not_be_made_again(old: Place) -> None:
    with old.planned(log={**ALL, SERVICES.name: 0}) as found:
        found.run(NullProgress())
    words = "\n".join(found.remarks)
    assert "logs can't be rebuilt, verified or shown as of a time any more" in words
    assert f"the log begins at {LOGS.name}/0@{old.log_begins()[LOGS.name, 0]}" in words
    done = command(old.settings, "rebuild", "logs")
    assert done.returncode == 3
    assert "what is gone from the log can't be folded again" in done.stderr


def test_a_projection_that_is_being_rebuilt_keeps_its_log(old: Place) -> None:
    with at_work(old.settings, "traces"):
        parts = old.prune(log=ALL)
        assert part(parts, "log", TRACES.name, 0).held_by.startswith("traces is being rebuilt, verified")
    assert all(old.log_begins()[TRACES.name, partition] == 0 for partition in range(4))
    assert old.log_begins()[LOGS.name, 0] > 0


def test_what_a_killed_rebuild_left_does_not_let_the_log_go_under_an_as_of(old: Place) -> None:
    another_generation(old, "loading")
    with at_work(old.settings, "traces"):
        another_generation(old, "as_of", 0)
        parts = old.prune(log={TRACES.name: 0})
    assert part(parts, "log", TRACES.name, PARTITION).held_by.startswith("traces is being rebuilt, verified")
    assert all(old.log_begins()[TRACES.name, partition] == 0 for partition in range(4))


def test_of_two_prunings_the_second_is_refused(old: Place) -> None:
    with old.planned(), pytest.raises(Misconfigured, match="another `spanfold prune` is running"):
        old.plan()
