"""`spanfold status`: what runs, and how far the read models are behind the log."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Final

import typer
from rich.console import RenderableType
from rich.text import Text

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, notices, print_result, table
from spanfold.operations.installation import command_line
from spanfold.operations.process_ends import ProgramEnd
from spanfold.operations.status import Checkpoint, State, Status, read_status

EXIT_CODES: Final = {
    State.RUNNING: 0,
    State.INCOMPLETE: 1,
    State.STOPPED: 3,
    State.MISCONFIGURED: 3,
    State.UNREACHABLE: 4,
}


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what is running, and how far the read models lag behind the log.

    Lag is the end of the log according to the broker, minus the checkpoint in Postgres. Exit codes: 0 everything is running
    and every partition has an owner, 1 something is missing, 3 nothing is running, 4 Kafka or Postgres does not answer.

    Example: spanfold status --json | jq .lag_total
    """
    current = read_status(installation(home))
    if as_json:
        print_result(current)
    elif current.state == State.STOPPED:
        start = command_line(current.home, "up", "--detach")
        notices().print(f"Nothing is running in {current.home}. Start a stack with `{start}`.")
        if current.ends:
            console().print(_end_table(current.ends))
    else:
        _print(current)
    raise typer.Exit(EXIT_CODES[current.state])


def _print(current: Status) -> None:
    screen = console()
    servers = [("Home", str(current.home)), ("Kafka", current.kafka_bootstrap), ("Postgres", current.postgres_dsn)]
    for section in (table(("", ""), servers), *_sections(current)):
        screen.print(section)
        screen.print()
    for gap in current.log_gaps:
        screen.print(Text(f"- {gap}"))
    for warning in current.warnings:
        screen.print(Text(f"! {warning}", style="yellow"))
    for problem in current.problems:
        screen.print(Text(f"! {problem}", style="bold red"))


def _sections(current: Status) -> Iterator[RenderableType]:
    if current.processes:
        rows = [
            (process.name, process.pid, _duration(process.uptime_s), f"{process.url}/metrics" if process.url else "")
            for process in current.processes
        ]
        yield table(("process", "pid", "uptime", "metrics"), rows)
    if current.ends:
        yield _end_table(current.ends)
    if current.group:
        members = [
            (member.member_id, member.host, ", ".join(member.owns) or _alarm("owns no partition"))
            for member in current.group.members
        ]
        yield table(("worker", "host", "owns"), members, f"group {current.group.name}: {current.group.state}")
    if current.partitions:
        yield _partition_table(current)
    for title, counts in (("parked", current.parked), ("rejected", current.rejected)):
        if counts is not None:
            yield table((title, "records"), [*counts.items()] or [("nothing", 0)])


def _end_table(ends: Sequence[ProgramEnd]) -> RenderableType:
    """One line for each program that ended unasked."""
    rows = [
        (end.name, f"{end.ended_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", end.manner, end.incarnations, end.error)
        for end in ends
    ]
    return table(("process", "last ended", "how", "starts", "last error"), rows)


def _partition_table(current: Status) -> RenderableType:
    """One line a partition: where the log begins and ends, and each projection's next offset."""
    names = list(dict.fromkeys(_label(checkpoint) for part in current.partitions for checkpoint in part.checkpoints))
    rows = []
    for part in current.partitions:
        at = {_label(checkpoint): checkpoint.next_offset for checkpoint in part.checkpoints}
        owner = part.owner or _alarm("nobody")
        rows.append((str(part), part.log_start, part.log_end, *(at.get(name) for name in names), part.lag, owner))
    return table(("partition", "log start", "log end", *names, "lag", "owner"), rows, _lag(current.lag_total))


def _label(checkpoint: Checkpoint) -> str:
    if checkpoint.projection == "snapshots" or checkpoint.generation < 1:
        return checkpoint.projection
    name = f"{checkpoint.projection} g{checkpoint.generation}"
    if checkpoint.suspended:
        return f"{name} (suspended)"
    return name if checkpoint.live else f"{name} (not live)"


def _lag(total: int | None) -> str:
    return "lag: unknown" if total is None else f"lag: {total} records"


def _alarm(text: str) -> Text:
    return Text(text, style="bold red")


def _duration(seconds: float | None) -> str | Text:
    if seconds is None:
        return _alarm("not running")
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
