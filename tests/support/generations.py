"""Generations of projections: being alone at work on them, what there are, and what must not be left of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spanfold.kafka.topics import ensure_topics
from spanfold.language.progress import NullProgress
from spanfold.language.settings import Settings
from spanfold.projections.projection import Projection, installed
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext, rebuild_context
from tests.support.databases import Ledger


@contextmanager
def at_work(settings: Settings, projection: str | Projection = "traces") -> Iterator[RebuildContext]:
    """Alone with the projection's generations."""
    assert settings.postgres_dsn
    chosen = installed()[projection] if isinstance(projection, str) else projection
    topics = ensure_topics(settings, chosen.topics)
    with rebuild_context(settings, settings.postgres_dsn, topics, chosen, NullProgress()) as context:
        yield context


def states(ledger: Ledger) -> list[tuple[str, int, str]]:
    return ledger.execute("SELECT projection, generation, state FROM spanfold.projections ORDER BY 1, 2").fetchall()


def leftovers(ledger: Ledger) -> dict[str, Any]:
    """What a rebuild that is over must not leave behind."""
    return {
        "schemas": ledger.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '_g[0-9]+$' "
            "AND nspname NOT IN (SELECT schema_name FROM spanfold_core.generations)"
        ).fetchall(),
        "generations": ledger.execute(
            "SELECT projection, generation FROM spanfold_core.generations WHERE state IN ('loading', 'following')"
        ).fetchall(),
        "checkpoints": ledger.execute(
            "SELECT DISTINCT projection, generation FROM spanfold_core.checkpoints WHERE projection <> 'journal' "
            "EXCEPT SELECT projection, generation FROM spanfold_core.generations"
        ).fetchall(),
        "sessions": ledger.execute(
            "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name SIMILAR TO 'spanfold (rebuild|load|compare)%'"
        ).fetchall(),
    }


NOTHING: dict[str, Any] = {"schemas": [], "generations": [], "checkpoints": [], "sessions": []}
