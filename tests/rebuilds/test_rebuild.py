"""A rebuild makes the same tables again, beside the live ones, and swaps them in."""

from projections.projection import installed
from spanfold.settings import Settings
from stream_processors import rebuild as rebuilding
from tests.rebuilds.conftest import NOTHING, Ledger, at_work, folded, leftovers, publish, rows, states
from tests.stream_processors.conftest import Worker


def test_a_rebuilt_projection_has_the_rows_of_the_live_one_and_goes_on(
    stack_settings: Settings, ledger: Ledger, folding: Worker
) -> None:
    before = rows(ledger)
    for name in installed():
        with at_work(stack_settings, name) as place:
            result = rebuilding.rebuild(place, 2)
        assert result.parity
        assert all(each.equal for each in result.parity), result.parity
    assert rows(ledger) == before
    assert [state for _, _, state in states(ledger)] == ["previous", "live"] * len(installed())

    publish(stack_settings, 1000, seed=2)
    folded(ledger, stack_settings, folding)
    later = rows(ledger)
    assert later != before
    with at_work(stack_settings) as place:
        result = rebuilding.rollback(place, 2)
    assert result.records > 0
    assert rows(ledger) == later
    assert ("traces", 1, "live") in states(ledger)
    assert leftovers(ledger) == NOTHING
