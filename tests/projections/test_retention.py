"""What the settings may name, and what of it may be let go of."""

from typing import Any

import pytest
from sqlalchemy import TIMESTAMP, Column, MetaData, Table, Text

from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import SERVICES, TRACES, installed_topics
from spanfold.projections.projection import installed
from spanfold.projections.retention.rules import (
    Retained,
    journal_retentions,
    late_days,
    log_retentions,
    retained_of,
    table_retentions,
)


def projection(name: str, topics: Any) -> Any:
    """One with a table `spans` of its own."""
    own = MetaData()
    table = Table("spans", own, Column("id", Text), Column("at", TIMESTAMP), info={"retained": Retained(("at",))})
    assert retained_of(table) == Retained(("at",))
    return type("Other", (), {"name": name, "topics": topics, "metadata": own})()


def test_tables_of_one_name_are_told_apart_by_their_projection() -> None:
    both = {**installed(), "mine": projection("mine", (TRACES,))}
    (found,) = table_retentions({"mine.spans": 3}, both)
    assert (found.projection.name, found.retained, found.days) == ("mine", Retained(("at",)), 3)
    (found,) = table_retentions({"traces.spans": 3}, both)
    assert found.retained.looked_up_days == 7
    with pytest.raises(Misconfigured, match=r"expected .*mine\.spans.*traces\.spans"):
        table_retentions({"spans": 3}, both)


def test_no_row_that_a_conditional_topic_may_still_change_is_let_go_of() -> None:
    with pytest.raises(Misconfigured, match="accepts events of any age"):
        table_retentions({"spans": 3}, {"mine": projection("mine", (SERVICES,))})


def test_the_journal_of_a_conditional_topic_is_kept_for_ever() -> None:
    with pytest.raises(Misconfigured, match=r"spanfold\.services.*never deleted"):
        journal_retentions({SERVICES.name: 3}, installed_topics())
    assert journal_retentions({TRACES.name: 3}, installed_topics()) == {TRACES.name: 3}
    assert log_retentions({SERVICES.name: 3}, installed_topics()) == {SERVICES.name: 3}
    assert late_days(TRACES) == 32


def test_settings_are_json_and_empty_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().log_retention_days == {}
    monkeypatch.setenv("SPANFOLD_LOG_RETENTION_DAYS", '{"spanfold.traces": 14}')
    monkeypatch.setenv("SPANFOLD_TABLE_RETENTION_DAYS", "")
    assert (Settings().log_retention_days, Settings().table_retention_days) == ({"spanfold.traces": 14}, {})
    monkeypatch.setenv("SPANFOLD_LOG_RETENTION_DAYS", "14")
    with pytest.raises(ValueError, match="log_retention_days"):
        Settings()
