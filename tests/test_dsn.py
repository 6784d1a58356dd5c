"""A DSN is a URL; whoever takes one says so, and never repeats it."""

from collections.abc import Callable

import pytest

from spanfold.bootstrap import event_store, query_reader
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation
from spanfold.operations.reading import without_password
from spanfold.postgres.dsn import postgres_dsn, url_with_defaults


def operated_on(settings: Settings) -> str:
    """The DSN that operations take."""
    return Installation(settings).dsn


WRONG = (
    "host=db password=secret",
    "secret",
    "mysql://me:secret@db/spanfold",
    "postgresql://me:%secret@db/spanfold",
)


@pytest.mark.parametrize("ask", [postgres_dsn, operated_on, query_reader])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_url_is_refused_untold(ask: Callable[[Settings], object], wrong: str) -> None:
    with pytest.raises(Misconfigured, match="SPANFOLD_POSTGRES_DSN") as refused:
        ask(Settings(postgres_dsn=wrong))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_event_store_refuses_it_too(kafka_bootstrap: str, wrong: str) -> None:
    with pytest.raises(Misconfigured, match="SPANFOLD_POSTGRES_DSN") as refused:
        async with event_store(Settings(kafka_bootstrap=kafka_bootstrap, postgres_dsn=wrong)):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("ask", [postgres_dsn, operated_on, query_reader])
@pytest.mark.parametrize("none", [None, ""])
def test_none_is_said_to_be_none(ask: Callable[[Settings], object], none: str | None) -> None:
    with pytest.raises(Misconfigured, match="no Postgres is configured"):
        ask(Settings(postgres_dsn=none))


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:se/c:r?et@db:5432/one", "postgresql://me:***@db:5432/one"),
        (
            "postgresql://db/one?user=me&password=secret&sslmode=require",
            "postgresql://db/one?user=me&password=***&sslmode=require",
        ),
        ("postgresql://me@db:5432/one", "postgresql://me@db:5432/one"),
    ],
)
def test_a_dsn_that_is_shown_has_no_password(dsn: str, shown: str) -> None:
    assert without_password(dsn) == shown


def test_a_default_is_added_to_a_url_that_does_not_say_it() -> None:
    bare = "postgresql://me:connect_timeout=@db/one"
    assert url_with_defaults(bare, connect_timeout="5") == f"{bare}?connect_timeout=5"
    assert url_with_defaults(f"{bare}?sslmode=require", connect_timeout="5").endswith(
        "?sslmode=require&connect_timeout=5"
    )
    complete = f"{bare}?connect_timeout=9"
    assert url_with_defaults(complete, connect_timeout="5") == complete
