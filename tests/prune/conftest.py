"""Installations whose log is to be pruned."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.generations.shadow import next_offsets_of
from tests.prune.installation import Place, hundred_days, publish_at
from tests.support.databases import Ledger, database, register
from tests.support.servers import Servers
from tests.support.topics import topics_of


@pytest.fixture(scope="session")
def folded_database(servers: Servers, kafka_bootstrap: str, prepared_database: str) -> Iterator[str]:
    """The name of a database into which all have folded a log of a hundred days, every fifth with something in it."""
    with database(servers, prepared_database) as dsn:
        settings = Settings(kafka_bootstrap=kafka_bootstrap, postgres_dsn=dsn, topic_prefix=f"t{uuid.uuid4().hex[:8]}.")
        with topics_of(settings) as topics, psycopg.connect(dsn, autocommit=True) as ledger:
            register(ledger, topics)
            place = Place(settings, topics, ledger)
            place.publish(hundred_days())
            place.take_states()
        yield dsn.rpartition("/")[2]


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
