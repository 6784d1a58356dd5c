"""`spanfold parked`: records that could not be folded: which there are, what they carry, and how they are settled."""

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from spanfold.cli.output import console, notices, one_line, print_json, print_json_rows, table
from spanfold.cli.parked_payload import decoded, hex_dump
from spanfold.cli.parked_records import (
    Filters,
    ParkedRecord,
    State,
    counted,
    filters_of,
    found,
    named,
    positions_of,
    reader,
)
from spanfold.cli.parked_settling import (
    SETTLED_AS,
    Fact,
    Settled,
    append_facts,
    counts_by,
    facts_about,
    to_settle,
    unfulfilled,
    what_became_of,
)
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.events import RecordDiscarded, RecordRetried
from spanfold.language.parking import ParkedReason, explained
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.operations.visibility import wait_until_visible
from spanfold.producers.publisher import TelemetryPublisher

DUMPED_BYTES: Final = 1024
SHOWN_CHARACTERS: Final = 1000
LISTED_STILL_PARKED: Final = 20
PIECE: Final = 1000
"""So many facts are appended at a time: what --timeout bounds, and what is at most under way when this is interrupted."""

ByReason = Annotated[ParkedReason | None, typer.Option("--reason", help="Parked for this reason.")]
ByTopic = Annotated[str | None, typer.Option("--topic", help="Of this topic: spanfold.traces, or just traces.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="In the log at this time or later, RFC 3339.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="In the log before this time, RFC 3339.")]
ByAggregate = Annotated[str | None, typer.Option("--aggregate", help="Of this aggregate: the trace id.")]
Positions = Annotated[
    list[str] | None, typer.Argument(metavar="TOPIC/PARTITION@OFFSET", help="Which records.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Every parked record.")]
Limit = Annotated[int | None, typer.Option(min=1, help="No more than so many, the newest.", show_default=False)]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Kept in the log, with who did it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the read models have passed the facts.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds for Kafka and for --wait, of each 1,000 records.")
]

parked = typer.Typer(
    no_args_is_help=True,
    help=f"""List, show, retry or discard records that could not be folded.

    A record that was accepted and can't become rows is parked, with its bytes, position and reason. Retry it when the
    cause is repaired: software upgraded, constraint dropped. A record that was rejected (malformed, misrouted, …) is not
    parked and stays rejected.

    {explained("; ")}.

    The records are also in SQL: spanfold sql 'SELECT * FROM parked_records'.

    Example: spanfold parked list --summary && spanfold parked retry --reason unknown_schema
    """,
)


@dataclass(frozen=True, slots=True)
class How:
    """How records are to be settled, as the options say it."""

    why: str
    yes: bool
    wait: bool
    timeout_s: float
    as_json: bool


@parked.command("list")
def list_records(
    reason: ByReason = None,
    topic: ByTopic = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[State, typer.Option(help="What became of them.")] = State.PARKED,
    aggregate_id: ByAggregate = None,
    limit: Annotated[int, typer.Option(min=1, help="No more than so many, the newest.")] = 100,
    summary: Annotated[bool, typer.Option("--summary", help="Only how many, by topic and reason.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List parked records, the newest last.

    Also in SQL: spanfold sql 'SELECT * FROM parked_records ORDER BY log_time'.

    Example: spanfold parked list --reason unreadable --since 2026-11-23T07:00:00Z --json
    """
    settings = running_settings(chosen_settings(home))
    filters = filters_of(reason, topic, since, until, aggregate_id, limit, state, settings.topic_prefix)
    with reader(named_postgres(settings)) as connection:
        counts = counted(connection, filters)
        records = [] if summary else found(connection, filters)
    if summary:
        _print_counts(counts, as_json)
    elif as_json:
        print_json_rows(record.as_json() for record in records)
    else:
        _print_records(records, sum(count for _, _, count in counts))


def _print_counts(counts: Sequence[tuple[str, str, int]], as_json: bool) -> None:
    columns = ("topic", "reason", "records")
    if as_json:
        print_json_rows(dict(zip(columns, row, strict=True)) for row in counts)
    else:
        console().print(table(columns, counts or [("nothing", "", 0)]))


def _print_records(records: Sequence[ParkedRecord], of: int) -> None:
    columns = ("position", "log time", "event", "aggregate", "reason", "detail", "state")
    rows = [
        (
            str(each.position), each.log_time, one_line(each.event_type), one_line(each.aggregate_id), each.reason,
            one_line(each.detail), _state(each),
        )
        for each in records
    ]  # fmt: skip
    if rows:
        console().print(table(columns, rows))
    others = f", the newest of {of:,}: --limit shows more" if of > len(rows) else ""
    notices().print(f"({_counted(len(rows))}{others})", markup=False)


def _state(record: ParkedRecord) -> str:
    if record.settled_offset is not None:
        return f"{record.state} at {record.settled_offset}"
    return record.state if record.last_tried_offset is None else f"parked, tried at {record.last_tried_offset}"


def _counted(count: int, thing: str = "record") -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


@parked.command()
def show(
    position: Annotated[
        list[str], typer.Argument(metavar="TOPIC/PARTITION@OFFSET", help="Or three words: TOPIC PARTITION OFFSET.")
    ],
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show one record that was parked: why, what it says as far as it can be read, and its bytes.

    Long values are cut unless --full; with --json nothing ever is, times of fields are µs since 1970 UTC and bytes are
    hex. The same bytes are in SQL, in key, headers and payload of spanfold.parked_records.

    Example: spanfold parked show spanfold.traces/0@42
    """
    settings = running_settings(chosen_settings(home))
    positions = positions_of(position, settings.topic_prefix)
    if len(positions) != 1:
        raise InvalidInput("one position at a time: spanfold.traces/0@42, or three words: spanfold.traces 0 42")
    with reader(named_postgres(settings)) as connection:
        (record,) = named(connection, positions)
        row = connection.execute(BYTES.encode(), astuple(record.position)).fetchone()
    key, headers, payload = row or (None, None, None)
    if as_json:
        rest: dict[str, Any] = {"key": key, "headers": headers, "decoded": decoded(payload), "payload": payload}
        print_json(record.as_json() | rest)
    else:
        _show(record, key, headers, payload, full)


BYTES: Final = """
SELECT key, headers, payload
  FROM spanfold.parked_records
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""


def _show(
    record: ParkedRecord, key: bytes | None, headers: list[list[Any]] | None, payload: bytes | None, full: bool
) -> None:
    screen = console()
    facts = [
        ("Position", str(record.position)),
        ("State", _state(record)),
        ("Reason", record.reason),
        ("Detail", one_line(record.detail)),
        ("Log time", record.log_time),
        ("Occurred at", record.occurred_at),
        ("Key", "-" if key is None else one_line(key.decode(errors="backslashreplace"))),
    ]
    screen.print(table(("", ""), facts))
    screen.print()
    if record.state == State.ERASED:
        screen.print("Its trace was erased: key, headers and payload are gone")
        return
    screen.print(table(("header", "value"), [(_header(name), _header(value)) for name, value in headers or []]))
    screen.print()
    _show_decoded(decoded(payload), full)
    _show_bytes(payload, full)


def _header(value: Any) -> str | None:
    return None if value is None else one_line(value)


def _show_decoded(said: dict[str, Any], full: bool) -> None:
    screen = console()
    if said["schema_id"] is not None:
        screen.print(f"Schema {said['schema_id']}: {said['event_type'] or 'unknown here'}", markup=False)
    if said["error"]:
        screen.print(Text(one_line(said["error"])))
    if said["fields"]:
        rows = [(name, _cut(one_line(value), full)) for name, value in said["fields"].items()]
        screen.print(table(("field", "value"), rows))
    screen.print()


def _cut(text: str, full: bool) -> str:
    left = len(text) - SHOWN_CHARACTERS
    return text if full or left <= 0 else f"{text[:SHOWN_CHARACTERS]}… and {left:,} characters more: --full"


def _show_bytes(payload: bytes | None, full: bool) -> None:
    if payload is None:
        console().print("No payload: the record's value is null")
        return
    shown = payload if full else payload[:DUMPED_BYTES]
    console().print(f"Payload, {len(payload):,} bytes")
    for line in hex_dump(shown):
        console().print(line, markup=False, soft_wrap=True)
    if len(shown) < len(payload):
        console().print(f"… and {len(payload) - len(shown):,} bytes more: --full shows them")


@parked.command()
def retry(
    positions: Positions = None,
    every: All = False,
    reason: ByReason = None,
    topic: ByTopic = None,
    since: Since = None,
    until: Until = None,
    aggregate_id: ByAggregate = None,
    limit: Limit = None,
    why: Why = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout_s: Timeout = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fold parked records, once what kept them from it is repaired.

    A fact for each, RecordRetried, is appended to its partition; where that lies, the record is folded, by every replay.
    What still can't be folded stays parked. The exit code is 0 when all were settled, 1 when some are still parked. What
    became of them is also in SQL: state, settled_offset and last_tried_offset of spanfold.parked_records.

    Example: spanfold parked retry --reason unknown_schema --why 'upgraded to 0.2'
    """
    settings = running_settings(chosen_settings(home))
    filters = filters_of(reason, topic, since, until, aggregate_id, limit, prefix=settings.topic_prefix)
    chosen = _chosen(settings, RecordRetried, positions or [], filters, every)
    _settle(settings, RecordRetried, chosen, How(why, yes, wait, timeout_s, as_json))


@parked.command()
def discard(
    positions: Positions = None,
    every: All = False,
    reason: ByReason = None,
    topic: ByTopic = None,
    since: Since = None,
    until: Until = None,
    aggregate_id: ByAggregate = None,
    limit: Limit = None,
    why: Why = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout_s: Timeout = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Give parked records up for good: they will never be folded.

    A fact for each, RecordDiscarded, is appended to its partition. Their bytes stay in the log and in SQL, in
    spanfold.parked_records.

    Example: spanfold parked discard spanfold.traces/0@42 --why 'a test in production'
    """
    settings = running_settings(chosen_settings(home))
    filters = filters_of(reason, topic, since, until, aggregate_id, limit, prefix=settings.topic_prefix)
    chosen = _chosen(settings, RecordDiscarded, positions or [], filters, every)
    _settle(settings, RecordDiscarded, chosen, How(why, yes, wait, timeout_s, as_json))


def _chosen(settings: Settings, fact: Fact, words: Sequence[str], filters: Filters, every: bool) -> list[ParkedRecord]:
    """The records that the fact is to be about. InvalidInput unless they were chosen in just one way."""
    ways = (bool(words), filters != Filters(), every)
    if sum(ways) != 1:
        raise InvalidInput("say which records, in one way: by positions, by filters such as --reason, or --all")
    with reader(named_postgres(settings)) as connection:
        if not words:
            records = found(connection, filters)
            for why_not in unfulfilled(fact, records):
                notices().print(why_not, markup=False)
            return to_settle(fact, records, by_position=False)
        records = named(connection, positions_of(words, settings.topic_prefix))
    for record in records:
        if record.state == SETTLED_AS[fact]:
            notices().print(
                f"{record.position} was {record.state} before, at offset {record.settled_offset}", markup=False
            )
    return to_settle(fact, records, by_position=True)


def _settle(settings: Settings, fact: Fact, chosen: Sequence[ParkedRecord], how: How) -> None:
    """Append the facts and say what became of the records; exit code 1 when some are still parked."""
    if chosen and not how.yes and not _confirmed(fact, chosen):
        raise typer.Exit(1)
    if chosen:
        _append(settings, fact, chosen, how)
    positions = [each.position for each in chosen]
    settled = what_became_of(named_postgres(settings), positions) if how.wait else None
    if how.as_json:
        print_json(_outcome(len(chosen), settled))
    else:
        _report(fact, len(chosen), settled)
    if settled and settled.still_parked:
        raise typer.Exit(1)


def _confirmed(fact: Fact, chosen: Sequence[ParkedRecord]) -> bool:
    """Whether whoever sits there says yes. InvalidInput when nobody does."""
    screen = notices()
    counts = counts_by(chosen, lambda each: (each.topic, each.reason))
    screen.print(table(("topic", "reason", "records"), [(*key, count) for key, count in counts.items()]))
    verb = "Retry" if fact is RecordRetried else "Discard for good"
    screen.print(f"{verb}: {_counted(len(chosen))}? [y/N] ", markup=False, end="")
    answer = sys.stdin.readline()
    if not answer:
        raise InvalidInput("nobody answers: say --yes to do it without being asked")
    return answer.strip().lower() in ("y", "yes")


def _append(settings: Settings, fact: Fact, chosen: Sequence[ParkedRecord], how: How) -> None:
    """Append the facts, PIECE at a time; a piece is waited for before the next one goes, if they are waited for at all."""
    events, done, wait_s = facts_about(fact, chosen, how.why, now_us()), 0, how.timeout_s
    with TelemetryPublisher(settings, block_timeout_s=wait_s, message_timeout_s=wait_s) as publisher, _bar() as bar:
        task = bar.add_task("", total=len(chosen))
        while piece := list(islice(events, PIECE)):
            try:
                appended = append_facts(publisher, piece, wait_s)
                if how.wait:
                    wait_until_visible(named_postgres(settings), appended.ends, wait_s)
            except SpanfoldError:
                notices().print(f"{done:,} of {len(chosen):,} were done; the same command goes on with the others")
                raise
            done += len(piece)
            bar.update(task, completed=done)


def _bar() -> Progress:
    """How many of the records are done, shown on a terminal."""
    screen = notices()
    columns = (TextColumn("Settling"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


def _report(fact: Fact, appended: int, settled: Settled | None) -> None:
    if not appended:
        console().print("nothing to do: no record is parked that this is about")
    elif settled is None:
        hint = "`spanfold parked list --state all` tells what becomes of them"
        console().print(f"{_counted(appended, 'fact')} appended; {hint}")
    else:
        _print_settled(fact, settled)


def _outcome(appended: int, settled: Settled | None) -> dict[str, Any]:
    """What programs are told; null is not known, since nobody waited."""
    known: dict[str, Any] = {"appended": appended, "retried": None, "discarded": None, "still_parked": None}
    if settled:
        known |= {name: settled.states.get(name, 0) for name in SETTLED_AS.values()}
        known["still_parked"] = [record.as_json() for record in settled.still_parked]
    return known


def _print_settled(fact: Fact, settled: Settled) -> None:
    screen, states, left = console(), settled.states, settled.still_parked
    wished = SETTLED_AS[fact]
    done = f"{_counted(states.get(wished, 0))} {'retried and folded' if fact is RecordRetried else wished}"
    others = [f"{count:,} {state} meanwhile by someone else" for state, count in states.items() if state != wished]
    still = [f"{len(left):,} still parked"] if left else []
    screen.print(", ".join([done, *others, *still]))
    if left:
        rows = [(str(each.position), each.reason, one_line(each.detail)) for each in left[:LISTED_STILL_PARKED]]
        screen.print(table(("still parked", "reason", "detail"), rows))
    if len(left) > LISTED_STILL_PARKED:
        screen.print(f"… and {len(left) - LISTED_STILL_PARKED:,} more: `spanfold parked list` shows them")
