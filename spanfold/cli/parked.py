"""`spanfold parked`: records that could not be folded: which there are, what they carry, and how they are settled."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from spanfold.cli.options import AsJson, Home, Why, Yes, confirmed, installation
from spanfold.cli.output import console, notices, one_line, print_result, table
from spanfold.cli.parked_record import print_record, state_of
from spanfold.cli.progress import screen
from spanfold.language.events import RecordDiscarded, RecordRetried
from spanfold.language.parking import ParkedReason, explained
from spanfold.operations import parked as operations
from spanfold.operations.installation import Installation
from spanfold.operations.parked import (
    SETTLED_AS,
    Fact,
    Filters,
    ParkedRecord,
    Selection,
    SettleOptions,
    SettleReport,
    State,
)

LISTED_STILL_PARKED: Final = 20

ByReason = Annotated[ParkedReason | None, typer.Option("--reason", help="Only records parked for this reason.")]
ByTopic = Annotated[
    str | None, typer.Option("--topic", help="Only records of this topic: spanfold.traces, or just traces.")
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only records that reached the log at this time or later, RFC 3339.")
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only records that reached the log before this time, RFC 3339.")
]
ByAggregate = Annotated[str | None, typer.Option("--aggregate", help="Only records of this aggregate: the trace id.")]
Positions = Annotated[
    list[str] | None, typer.Argument(metavar="TOPIC/PARTITION@OFFSET", help="Records to settle.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Every parked record.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many, the newest.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the read models reflect the outcome.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds to wait for Kafka and for --wait, per 1,000 records.")
]

parked = typer.Typer(
    no_args_is_help=True,
    help=f"""List, show, retry or discard records that could not be folded.

    An accepted record that can't become rows is parked, with its bytes, position and reason. Retry it after the cause is
    fixed: software upgraded, constraint dropped. A rejected record (malformed, misrouted, …) is not parked and stays
    rejected.

    {explained("; ")}.

    The records are also in SQL: spanfold sql 'SELECT * FROM parked_records'.

    Example: spanfold parked list --summary && spanfold parked retry --reason unknown_schema
    """,
)


@parked.command("list")
def list_records(
    reason: ByReason = None,
    topic: ByTopic = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[State, typer.Option(help="Only records in this state.")] = State.PARKED,
    aggregate_id: ByAggregate = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 100,
    summary: Annotated[bool, typer.Option("--summary", help="Print only counts by topic and reason.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List parked records, the newest last.

    Also in SQL: spanfold sql 'SELECT * FROM parked_records ORDER BY log_time'.

    Example: spanfold parked list --reason unreadable --since 2026-11-23T07:00:00Z --json
    """
    target, filters = installation(home), Filters(reason, topic, since, until, aggregate_id, state)
    if summary:
        counts = operations.count_parked(target, filters)
        rows = [(count.topic, count.reason, count.records) for count in counts]
        summary_table = table(("topic", "reason", "records"), rows or [("nothing", "", 0)])
        print_result(counts) if as_json else console().print(summary_table)
        return
    listed = operations.list_parked(target, filters, limit)
    if as_json:
        print_result(listed.records)
    else:
        _print_records(listed.records, listed.total)


def _print_records(records: Sequence[ParkedRecord], total: int) -> None:
    columns = ("position", "log time", "event", "aggregate", "reason", "detail", "state")
    rows = [
        (
            str(record.position), record.log_time, one_line(record.event_type), one_line(record.aggregate_id), record.reason,
            one_line(record.detail), state_of(record),
        )
        for record in records
    ]  # fmt: skip
    if rows:
        console().print(table(columns, rows))
    others = f", the newest of {total:,}: --limit shows more" if total > len(rows) else ""
    notices().print(f"({_counted(len(rows))}{others})", markup=False)


def _counted(count: int, thing: str = "record") -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


@parked.command()
def show(
    position: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION@OFFSET", help="Position of the record.")],
    full: Annotated[bool, typer.Option("--full", help="Don't shorten values.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show one parked record: the reason, its content as far as it can be decoded, and its bytes.

    Long values are shortened unless --full is given. With --json nothing is shortened, times of fields are µs since 1970
    UTC, and bytes are hex. In SQL the same bytes are in key, headers and payload of spanfold.parked_records.

    Example: spanfold parked show spanfold.traces/0@42
    """
    parked_bytes = operations.show_parked(installation(home), position)
    if as_json:
        print_result(parked_bytes)
    else:
        print_record(parked_bytes, full)


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
    """Fold parked records after the cause is fixed.

    Appends an event, RecordRetried, for each record to its partition; every replay folds the record at that place. A record
    that still can't be folded stays parked. Exit code 0 if all were settled, 1 if some are still parked. In SQL the outcome
    is in state, settled_offset and last_tried_offset of spanfold.parked_records.

    Example: spanfold parked retry --reason unknown_schema --why 'upgraded to 0.2'
    """
    filters, options = Filters(reason, topic, since, until, aggregate_id), SettleOptions(why, wait, timeout_s)
    selection = operations.select_parked(
        target := installation(home), RecordRetried, positions or (), filters, every, limit
    )
    _settle(target, RecordRetried, selection, options, yes=yes, as_json=as_json)


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
    """Discard parked records for ever: they will never be folded.

    Appends an event, RecordDiscarded, for each record to its partition. The bytes stay in the log and in
    spanfold.parked_records.

    Example: spanfold parked discard spanfold.traces/0@42 --why 'a test in production'
    """
    filters, options = Filters(reason, topic, since, until, aggregate_id), SettleOptions(why, wait, timeout_s)
    selection = operations.select_parked(
        target := installation(home), RecordDiscarded, positions or (), filters, every, limit
    )
    _settle(target, RecordDiscarded, selection, options, yes=yes, as_json=as_json)


def _settle(
    target: Installation, fact: Fact, selection: Selection, options: SettleOptions, *, yes: bool, as_json: bool
) -> None:
    """Append the facts and say what became of the records; exit code 1 when some are still parked."""
    for remark in selection.remarks:
        notices().print(remark, markup=False)
    if selection.records and not yes and not _confirmed(fact, selection.records):
        raise typer.Exit(1)
    with screen() as progress:
        report = operations.settle(target, fact, selection, options, progress)
    if as_json:
        print_result(report)
    else:
        _print_report(fact, report)
    if report.still_parked:
        raise typer.Exit(1)


def _confirmed(fact: Fact, records: Sequence[ParkedRecord]) -> bool:
    counts = Counter((record.topic, record.reason) for record in records)
    notices().print(table(("topic", "reason", "records"), [(*key, counts[key]) for key in sorted(counts)]))
    verb = "Retry" if fact is RecordRetried else "Discard for ever"
    return confirmed(f"{verb}: {_counted(len(records))}?")


def _print_report(fact: Fact, report: SettleReport) -> None:
    if not report.appended:
        console().print("nothing to do: no parked record matches")
    elif report.still_parked is None:
        hint = "`spanfold parked list --state all` shows the outcome"
        console().print(f"{_counted(report.appended, 'event')} appended; {hint}")
    else:
        _print_settled(fact, report, report.still_parked)


def _print_settled(fact: Fact, report: SettleReport, still_parked: Sequence[ParkedRecord]) -> None:
    counts = {"retried": report.retried or 0, "discarded": report.discarded or 0, "erased": report.erased or 0}
    intended = SETTLED_AS[fact]
    done = f"{_counted(counts[intended])} {'retried and folded' if fact is RecordRetried else intended}"
    others = [
        f"{count:,} {state} meanwhile by someone else" for state, count in counts.items() if count and state != intended
    ]
    left = [f"{len(still_parked):,} still parked"] if still_parked else []
    console().print(", ".join([done, *others, *left]))
    if still_parked:
        rows = [
            (str(record.position), record.reason, one_line(record.detail))
            for record in still_parked[:LISTED_STILL_PARKED]
        ]
        console().print(table(("still parked", "reason", "detail"), rows))
    if len(still_parked) > LISTED_STILL_PARKED:
        console().print(f"… and {len(still_parked) - LISTED_STILL_PARKED:,} more: `spanfold parked list` shows them")
