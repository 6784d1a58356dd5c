"""`spanfold trace`: one trace as the log tells it, folded before your eyes; the read models are not asked."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, notice, one_line, print_result
from spanfold.cli.waterfall import Bar, head_line, waterfall
from spanfold.language.json_values import time_text
from spanfold.operations.trace import TIMES, UnknownTrace, trace_history, view_of
from spanfold.operations.trace.fold import FoldedTrace, Row, Step

SHOWN_CHARACTERS: Final = 80
"""Of one value in a line of history."""

_ALWAYS_CHANGED: Final = ("trace_id", "trace_hex", "version", "last_event_at")
_COUNTS: Final = ("span_count", "error_count", "late_events")
_STATE_STYLE: Final = {"retried": "green", "parked": "red"}


def trace(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE_ID", help="Id of the trace, or its trace_hex.")],
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
    outcome = trace_history(installation(home), trace_id, limit)
    if not as_json:
        _print(outcome.folded, history)
    elif outcome.folded.trace is not None:
        print_result(view_of(outcome, history=history))
    if outcome.nothing is not None:
        raise UnknownTrace(one_line(outcome.nothing))
    if outcome.pruned is not None:
        notice(str(outcome.pruned))


def _print(folded: FoldedTrace, history: bool) -> None:
    screen = console()
    if folded.trace is not None:
        screen.print(head_line(folded.trace), soft_wrap=True)
        screen.print(Text(_counts(folded.trace)), soft_wrap=True)
        for line in waterfall([_bar(span) for span in folded.spans]):
            screen.print(line, soft_wrap=True)
    if history and folded.steps:
        screen.print("\nposition, log time, event time, type: what it changed")
        for step in folded.steps:
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
    if others := [str(position) for position in step.folds if position != record.position]:
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
    return _short(time_text(value) if name in TIMES else value)


def _short(value: Any) -> str:
    words = one_line(value)
    return words if len(words) <= SHOWN_CHARACTERS else words[: SHOWN_CHARACTERS - 1] + "…"
