"""`spanfold trace`: one trace as the log tells it, folded before your eyes; the read models are not asked."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from spanfold.cli.output import console, notices, one_line, print_json
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings
from spanfold.cli.trace_gone import Gone, gone
from spanfold.cli.trace_log import AsOf, Logged, as_of, before, records_of, similar
from spanfold.cli.trace_steps import Folded, Row, Step, folded
from spanfold.cli.waterfall import Bar, head_line, waterfall
from spanfold.language.errors import NotFound
from spanfold.language.json_values import time_text
from spanfold.language.topics import TRACES
from spanfold.operations.erasure import erasures_of

SHOWN_CHARACTERS: Final = 80
"""Of one value in a line of history."""

NAMED_RECORDS: Final = 3
"""So many records are named of a trace that nothing has been folded of."""

_TIMES: Final = ("start_time", "end_time", "last_event_at")
_ALWAYS_CHANGED: Final = ("trace_id", "version", "last_event_at")
_COUNTS: Final = ("span_count", "error_count", "late_events")
_STATE_STYLE: Final = {"retried": "green", "parked": "red"}


class UnknownTrace(NotFound):
    """The log has nothing of this trace that could be folded."""


def trace(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE_ID", help="Aggregate id of the trace.")],
    limit: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="TIME|OFFSET",
            help="Only what the log had before this time or offset.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Each record in log order, and what it changed.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show one trace as the log has it, and what each of its records changed.

    It is folded from the journal, not read from the tables. Prints a waterfall of its spans, and with --history one line per
    record with position, log time, event time, type and what it changed; duplicates and records that could not be folded
    are included, with the reason. --as-of shows what was known before a time (RFC 3339, by the broker's clock) or before
    an offset of its partition. With --json, `trace` and `spans` have the columns of spanfold.traces and spanfold.spans, and
    `journal_retention` says which days of the journal have been pruned; without --json a remark does.

    Exit code 1 when nothing of the trace has been folded.

    Example: spanfold trace 4bf92f3577b34da6a3ce929d0e0e4736 --history --as-of 2026-11-23T07:00:00Z
    """
    until = as_of(limit)
    dsn = named_postgres(running_settings(chosen_settings(home)))
    records = records_of(dsn, trace_id)
    seen = before(records, until)
    found, missing = folded(trace_id, seen), gone(dsn, trace_id)
    if as_json and found.trace is not None:
        print_json(_as_json(found, history, missing))
    elif not as_json:
        _show(found, history)
    if found.trace is None:
        why = _why_nothing(dsn, trace_id, records, seen, until)
        raise UnknownTrace(why if missing is None else f"{why}. And {missing}")
    if missing is not None:
        notices().print(str(missing), soft_wrap=True)


def _why_nothing(dsn: str, trace_id: str, records: Sequence[Logged], seen: Sequence[Logged], until: AsOf) -> str:
    if erased := erasures_of(dsn, trace_id):
        return f"trace {one_line(trace_id)} was erased: {'; '.join(map(str, erased.values()))}"
    nothing = f"nothing of trace {one_line(trace_id)} has been folded"
    if seen:
        words = "1 record" if len(seen) == 1 else f"{len(seen)} records"
        some = ", ".join(
            f"{each.position} {each.event_type} {each.reason or each.verdict}" for each in seen[:NAMED_RECORDS]
        )
        more = ", …" if len(seen) > NAMED_RECORDS else ""
        return f"{nothing}: the log has {words} of it ({some}{more}); see --history and `spanfold parked list`"
    if records:
        first = records[0]
        return f"{nothing} {until}: its first record is {first.position}, in the log since {time_text(first.log_time)}"
    meant = " or ".join(similar(dsn, trace_id))
    return (
        f"{nothing}: the journal has no record of it"
        + (f". Did you mean {one_line(meant)}?" if meant else ", nor of any that begins with it. ")
        + (
            ""
            if meant
            else "If it was published just now, wait a moment: `spanfold status` shows how far the workers are"
        )
    )


def _show(found: Folded, history: bool) -> None:
    screen = console()
    if found.trace is not None:
        screen.print(head_line(found.trace), soft_wrap=True)
        screen.print(Text(_counts(found.trace)), soft_wrap=True)
        for line in waterfall([_bar(span) for span in found.spans]):
            screen.print(line, soft_wrap=True)
    if history and found.steps:
        screen.print("\nposition, log time, event time, type: what it changed")
        for step in found.steps:
            screen.print(_line(step), soft_wrap=True)


def _counts(row: Row) -> str:
    counts = f"{row['span_count']} spans, {row['error_count']} errors, {row['late_events']} late"
    until = "still open" if row["end_time"] is None else f"to {time_text(row['end_time'])}"
    return f"{counts}; {'' if row['start_time'] is None else time_text(row['start_time'])} {until}; version {row['version']}"


def _bar(span: Row) -> Bar:
    names = ("span_id", "parent_span_id", "service_name", "operation_name", "kind", "status")
    return Bar(**{name: span[name] for name in names}, start_us=span["start_time"], end_us=span["end_time"])


def _line(step: Step) -> Text:
    """A record in one line."""
    record = step.record
    happened = "-" if record.occurred_at is None else time_text(record.occurred_at)
    place = (str(record.position), time_text(record.log_time), happened, one_line(record.event_type))
    parts = [Text("  ".join(map(str, place)))]
    if step.state != "folded":
        parts.append(Text(f"{step.state} ({one_line(step.why)})", style=_STATE_STYLE.get(step.state, "yellow")))
    if others := [str(each) for each in step.folds if each != record.position]:
        parts.append(Text(f"folds {', '.join(others)}", style="green"))
    if step.folds:
        parts.append(Text("; ".join(map(one_line, _changes(step))) or "no change"))
    return Text("  ").join(parts)


def _changes(step: Step) -> Iterator[str]:
    """In words: each column that changed, and each new span."""
    for name, (was, now) in step.changed.items():
        if name == "tags":
            new = {key: value for key, value in now.items() if key not in (was or {}) or was[key] != value}
            yield from [f"tags + {', '.join(f'{key}={_short(value)}' for key, value in new.items())}"] if new else []
        elif name in _COUNTS:
            yield from [f"{name} {was or 0} → {now}"] if now != (was or 0) else []
        elif name not in _ALWAYS_CHANGED:
            yield f"{name}: {_shown(name, was)} → {_shown(name, now)}"
    for span in step.spans:
        yield f"spans + {span['service_name']} {span['operation_name']}"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return _short(time_text(value) if name in _TIMES else value)


def _short(value: Any) -> str:
    words = one_line(value)
    return words if len(words) <= SHOWN_CHARACTERS else words[: SHOWN_CHARACTERS - 1] + "…"


def _as_json(found: Folded, history: bool, missing: Gone | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "trace": _with_times(found.trace or {}),
        "spans": [_with_times(span) for span in found.spans],
        "journal_retention": None if missing is None else asdict(missing),
    }
    return shown | {"history": [_step_as_json(step) for step in found.steps]} if history else shown


def _step_as_json(step: Step) -> dict[str, Any]:
    record = step.record
    return {
        "position": str(record.position),
        "topic": TRACES.name,
        "partition": record.partition,
        "kafka_offset": record.kafka_offset,
        "log_time": time_text(record.log_time),
        "occurred_at": None if record.occurred_at is None else time_text(record.occurred_at),
        "event_id": record.event_id,
        "event_type": record.event_type,
        "state": step.state,
        "why": step.why,
        "folds": [str(position) for position in step.folds],
        "changed": {
            name: [_with_times({name: value})[name] for value in values] for name, values in step.changed.items()
        },
        "spans": [_with_times(span) for span in step.spans],
    }


def _with_times(row: Row) -> Row:
    """Its times as RFC 3339."""
    return row | {name: time_text(row[name]) for name in _TIMES if row.get(name) is not None}
