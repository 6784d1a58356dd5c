"""The stack that a command is about: found by its home and the settings, or started for as long as a block runs."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn, cast

import typer
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, re-exported implicitly
    AdminClient,
    ConsumerGroupDescription,
)
from pydantic import ValidationError
from rich.console import Console
from rich.status import Status

from spanfold.application.aggregates import installed_aggregates
from spanfold.cli.otlp_program import otlp_program
from spanfold.embedded import EmbeddedStack, Program, boot_progress, read_state
from spanfold.kafka.client import kafka_config
from spanfold.kafka.plaintext import NO_SECURITY
from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.language.settings import Settings, default_home, settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.dsn import checked_dsn

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="SPANFOLD_HOME",
        resolve_path=True,
        file_okay=False,
        help="Folder of the stack's data, logs and state. Default: ~/.local/share/spanfold.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

READY_TIMEOUT_S: Final = 90.0

PROJECTOR: Final = "projector"
SNAPSHOTS: Final = "snapshots"
"""The kinds of workers: names of commands, and of consumer groups behind the installation's own name."""
REQUEST_TIMEOUT_S: Final = 5.0


def chosen_settings(
    home: Path | None = None, *, kafka_bootstrap: str | None = None, postgres_dsn: str | None = None
) -> Settings:
    """The environment's settings, with what was given on the command line before them. Raises Misconfigured."""
    given = {"home": home, "kafka_bootstrap": kafka_bootstrap, "postgres_dsn": postgres_dsn}
    try:
        return settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"SPANFOLD_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise Misconfigured(f"invalid setting: {wrong}") from error


def command_line(home: Path, *words: str) -> str:
    """What to type for a command about this home: `spanfold status`, with `--home` where it is not the default."""
    elsewhere = () if home == default_home() else ("--home", str(home))
    return shlex.join(("spanfold", *words, *elsewhere))


@contextmanager
def running_stack(
    settings: Settings, *, workers: int = 1, ephemeral: bool = False, console: Console | None = None
) -> Iterator[EmbeddedStack]:
    """A stack whose topics and tables are there and whose `workers` projectors own every partition, with the snapshot worker
    and OTLP's front door; stopped at the end.

    Servers that the settings name are used, the others started. SIGTERM ends the block as Ctrl-C does. `console` shows
    the progress. Raises what EmbeddedStack.start does, Misconfigured, LogUnavailable and StoreUnavailable.
    """
    progress = boot_progress(console) if console else None
    stack = EmbeddedStack.from_settings(settings, ephemeral=ephemeral)
    with sigterm_interrupts():
        with progress or nullcontext():
            stack.start(progress)
        try:
            found = settings_of(stack, settings)
            with _saying(console, "Topics and tables"):
                topics = prepare(found)
            with _saying(console, "Workers"):
                stack.launch(*worker_programs(found, workers, list(topics.values())))
            with _saying(console, "OTLP"):
                stack.launch(otlp_program(found))
            yield stack
        finally:
            stack.stop()


def settings_of(stack: EmbeddedStack, settings: Settings) -> Settings:
    """The settings by which a process of this stack works."""
    state = stack.state
    return settings.model_copy(
        update={
            "home": state.home,
            "kafka_bootstrap": state.kafka_bootstrap,
            "postgres_dsn": state.postgres_dsn,
            **(NO_SECURITY if state.has_own_kafka else {}),
        }
    )


def tell_notice(words: str) -> None:
    """A line on standard error."""
    print(words, file=sys.stderr)


def prepare(settings: Settings, tell: Callable[[str], None] = tell_notice) -> dict[str, TopicOnBroker]:
    """Create or check the topics and bring the database up to date; returns the topics by name. `tell` is called with a
    line about each projection that waits for a rebuild.

    Raises Misconfigured, LogUnavailable or StoreUnavailable.
    """
    # imported here: SQLAlchemy and Alembic take a second, and most commands don't need them
    from sqlalchemy.exc import OperationalError

    from spanfold.projections.generations import lifecycle
    from spanfold.projections.projection import installed

    dsn = named_postgres(settings)
    topics = ensure_topics(settings)
    try:
        for notice in lifecycle.prepare(dsn, topics.values(), installed()):
            tell(notice)
    except OperationalError as error:
        raise unreachable_postgres(error.orig) from error
    return topics


def to_be_rebuilt(settings: Settings) -> list[str]:
    """A line about each projection that waits for a rebuild, in a database that is prepared. Raises StoreUnavailable."""
    from sqlalchemy.exc import OperationalError

    from spanfold.projections.generations import lifecycle
    from spanfold.projections.projection import installed

    try:
        return lifecycle.to_be_rebuilt(named_postgres(settings), installed())
    except OperationalError as error:
        raise unreachable_postgres(error.orig) from error


def named_postgres(settings: Settings) -> str:
    """The DSN of the settings. Misconfigured when none is named, or it is no postgresql:// URL."""
    if not settings.postgres_dsn:
        raise Misconfigured(
            f"no Postgres is configured and no stack is running in {settings.home}: start one with"
            f" `{command_line(settings.home, 'up', '--detach')}`, or set SPANFOLD_POSTGRES_DSN"
        )
    return checked_dsn(settings.postgres_dsn)


def unreachable_postgres(error: Exception | None) -> StoreUnavailable:
    """What libpq says, on one line: it names the server, and not the password."""
    return StoreUnavailable(f"Postgres can't be used: {' '.join(str(error).split())}")


def running_settings(settings: Settings) -> Settings:
    """The settings, with the URLs of the stack that runs on their home where they name no servers themselves."""
    state = read_state(settings.home)
    if state is None:
        return settings
    found: dict[str, Any] = {"postgres_dsn": settings.postgres_dsn or state.postgres_dsn}
    if not settings.kafka_bootstrap:
        found |= {"kafka_bootstrap": state.kafka_bootstrap, **(NO_SECURITY if state.has_own_kafka else {})}
    return settings.model_copy(update=found)


def worker_programs(settings: Settings, projectors: int, topics: list[TopicOnBroker]) -> list[Program]:
    """The programs of so many projectors and of the snapshot worker."""
    (settings.home / "workers").mkdir(exist_ok=True)
    folding = {aggregate.topic for aggregate in installed_aggregates().values()}
    return [
        *_workers(settings, PROJECTOR, [f"{PROJECTOR}-{number}" for number in range(1, projectors + 1)], topics),
        *_workers(settings, SNAPSHOTS, [SNAPSHOTS], [each for each in topics if each.topic in folding]),
    ]


def _workers(settings: Settings, kind: str, names: list[str], topics: list[TopicOnBroker]) -> list[Program]:
    """Workers of one kind. Each counts as ready once it is in the group and the group owns every partition."""
    group = WorkerGroup(settings, kind)
    before = group.member_ids()
    return [
        Program(
            name,
            [sys.executable, "-m", "spanfold", "worker", kind],
            ready=_joined(group, before, number, topics),
            ready_timeout_s=READY_TIMEOUT_S,
            cwd=settings.home / "workers",  # where Faust keeps a data folder
        )
        for number, name in enumerate(names, start=1)
    ]


def _joined(group: "WorkerGroup", before: set[str], newcomers: int, topics: list[TopicOnBroker]) -> Callable[[], bool]:
    """A generation that has the newcomers in it, and is settled, has no partition left with a member that is dead."""

    def joined() -> bool:
        described = group.describe()
        if described is None or described.state != ConsumerGroupState.STABLE:
            return False
        new = {member.member_id for member in described.members} - before
        owned = owners(described)
        wanted = {(topic.name, partition) for topic in topics for partition in range(topic.partitions)}
        if len(new) < newcomers or not wanted <= owned.keys():
            return False
        group.let_go()
        return True

    return joined


class WorkerGroup:
    """The consumer group of the workers of one kind, as the broker sees it."""

    def __init__(self, settings: Settings, kind: str) -> None:
        self.name = f"{settings.group}-{kind}"
        self._config = kafka_config(settings)
        self._admin: AdminClient | None = None

    def describe(self) -> ConsumerGroupDescription | None:
        """Its state and members; None when the coordinator doesn't answer now, or never heard of the group."""
        self._admin = self._admin or AdminClient(self._config)
        described = self._admin.describe_consumer_groups([self.name], request_timeout=REQUEST_TIMEOUT_S)
        try:
            return cast(ConsumerGroupDescription, described[self.name].result())
        except KafkaException:
            return None

    def let_go(self) -> None:
        """Let go of the client. One that outlives its Kafka may hang when the process ends (seen in librdkafka's destroy)."""
        self._admin = None

    def member_ids(self) -> set[str]:
        """The ids of its members now."""
        described = self.describe()
        return {member.member_id for member in described.members} if described else set()


def owners(described: ConsumerGroupDescription) -> dict[tuple[str, int], str]:
    """Which member owns a partition, keyed by the topic's name on the broker and the partition."""
    return {
        (partition.topic, partition.partition): member.member_id
        for member in described.members
        for partition in member.assignment.topic_partitions
    }


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _saying(console: Console | None, what: str) -> Iterator[None]:
    with Status(what, console=console) if console else nullcontext():
        yield
