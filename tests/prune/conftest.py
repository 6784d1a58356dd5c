"""Installations whose log is to be pruned."""

from collections.abc import Iterator

import psycopg
import pytest

from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.generations.shadow import next_offsets_of
from tests.prune.installation import Place, hundred_days, publish_at
from tests.support.databases import Ledger
from tests.support.installations import installation
from tests.support.servers import Servers


@pytest.fixture(scope="session")
def folded_database(servers: Servers, kafka_bootstrap: str, prepared_database: str) -> Iterator[str]:
    """The name of a database into which all have folded a log of a hundred days, every fifth with something in it."""
    with installation(servers, prepared_database) as settings:
        assert settings.postgres_dsn
        with psycopg.connect(settings.postgres_dsn, autocommit=True) as ledger:
            place = Place(settings, ensure_topics(settings), ledger)
            place.publish(hundred_days())
            place.take_states()
        yield settings.postgres_dsn.rpartition("/")[2]


@pytest.fixture
def template_database(prepared_database: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("folded_database")) if "old" in request.fixturenames else prepared_database


@pytest.fixture
def new(stack_settings: Settings, topics: dict[str, TopicOnBroker], ledger: Ledger) -> Place:
    """An installation whose log is empty."""
    return Place(stack_settings, topics, ledger)


@pytest.fixture
def old(new: Place) -> Place:
    """An installation with the log that `folded_database` has folded: what is published alike lies alike."""
    publish_at(new.settings, new.topics, hundred_days())
    assert next_offsets_of(new.ledger, JOURNAL, 0) == new.log_ends()
    return new
