"""`spanfold erase`: all that the tables have of one trace goes, and never comes back."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from spanfold.cli.erasing import (
    Erased,
    Found,
    append,
    erasable_topics,
    erasures_of,
    look_up,
    refuse,
    refuse_unheard,
    what_keeps_it,
)
from spanfold.cli.output import console, notices, print_json, table
from spanfold.cli.parked_payload import one_line
from spanfold.cli.parked_settling import user_at_host
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings
from spanfold.cli.visible import wait_until_visible
from spanfold.language.errors import InvalidInput
from spanfold.language.events import TraceErased
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.projection import installed


def erase(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE_ID", help="Aggregate id of the trace.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="Kept in the log, with who did it.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    even_if_unknown: Annotated[
        bool, typer.Option("--even-if-unknown", help="Also where no table knows it: its records may still come.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds for Kafka, and for the tables.")
    ] = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Erase all that the tables have of one trace, for ever.

    A fact, TraceErased, is appended to spanfold.traces and to spanfold.logs. Where it lies, the trace's rows go from every
    table, what its spans have added to operation_minutes and service_dependencies is taken off, and what is kept of its
    records names nobody. Later records of it are rejected as erased; a rebuild, and the past that `spanfold as-of` shows, leave
    it out. It returns when the tables have passed the facts. There is no way back.

    What it does not reach: Kafka's own bytes, until `spanfold prune` has deleted the log up to the positions that are
    printed; backups of Postgres; what other traces' records say of this one, such as links.

    Exit code 1 when nothing is known of the trace, or the answer is no.

    Example: spanfold erase 4bf92f3577b34da6a3ce929d0e0e4736 --why 'ticket 4711'
    """
    settings = running_settings(chosen_settings(home))
    dsn = named_postgres(settings)
    found = look_up(dsn, trace_id)
    missing = [topic for topic in erasable_topics() if topic.name not in found.erased]
    if missing:
        refuse(trace_id, found, even_if_unknown)
        if not yes and not _confirmed(trace_id, found):
            raise typer.Exit(1)
        event = TraceErased(aggregate_id=trace_id, occurred_at=now_us(), source=user_at_host(), why=why)
        with TelemetryPublisher(settings, block_timeout_s=timeout_s, message_timeout_s=timeout_s) as publisher:
            _wait(settings, append(publisher, event, missing, timeout_s), timeout_s, trace_id)
    erased, kept = erasures_of(dsn, trace_id), what_keeps_it(dsn, installed())
    if as_json:
        print_json(_outcome(trace_id, bool(missing), found, erased, kept))
    else:
        _report(trace_id, bool(missing), found, erased, kept)


def _wait(settings: Settings, positions: Sequence[Position], timeout_s: float, trace_id: str) -> None:
    """Return when the tables have passed the facts, and have heard them."""
    dsn = named_postgres(settings)
    ends = {(each.topic, each.partition): each.offset + 1 for each in positions}
    wait_until_visible(dsn, ends, timeout_s)
    refuse_unheard(positions, erasures_of(dsn, trace_id))


def _confirmed(trace_id: str, found: Found) -> bool:
    """Whether whoever sits there says yes. InvalidInput when nobody does."""
    screen = notices()
    screen.print(table(("what", "how many"), _counted(found)))
    screen.print(f"Erase trace {one_line(trace_id)} for ever? [y/N] ", markup=False, end="")
    answer = sys.stdin.readline()
    if not answer:
        raise InvalidInput("nobody answers: say --yes to do it without being asked")
    return answer.strip().lower() in ("y", "yes")


def _counted(found: Found) -> list[tuple[str, int]]:
    rows = [(f"spanfold.{view}", count) for view, count in found.rows.items()]
    return [*((f"records of {topic}", count) for topic, count in found.records.items()), *rows]


def _report(trace_id: str, anew: bool, found: Found, erased: Mapping[str, Erased], kept: Sequence[str]) -> None:
    screen = console()
    went = ", ".join(f"{count:,} {what}" for what, count in _counted(found) if count) or "nothing that was known of it"
    words = f"erased: {went}" if anew else "was erased before"
    screen.print(Text(f"trace {one_line(trace_id)} {words}"), soft_wrap=True)
    for each in erased.values():
        screen.print(Text(f"  {each}"), soft_wrap=True)
    screen.print(
        "Kafka has its bytes until the log is deleted up to and including these records, see `spanfold prune`; backups of "
        "Postgres have its rows, and a restored one loses them when it is folded forward.",
        soft_wrap=True,
    )
    for words in kept:
        screen.print(Text(f"still has it: {words}", style="yellow"), soft_wrap=True)


def _outcome(
    trace_id: str, anew: bool, found: Found, erased: Mapping[str, Erased], kept: Sequence[str]
) -> dict[str, Any]:
    """What programs are told."""
    return {
        "trace_id": trace_id,
        "erased_before": not anew,
        "records": dict(found.records),
        "rows": dict(found.rows),
        "facts": [_place(each.position) for each in erased.values()],
        "still_has_it": list(kept),
    }


def _place(position: Position) -> dict[str, Any]:
    """A position with its parts, as JSON has it."""
    return {
        "position": str(position),
        "topic": position.topic,
        "partition": position.partition,
        "kafka_offset": position.offset,
    }
