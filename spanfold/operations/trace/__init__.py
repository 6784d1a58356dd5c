"""One trace as the log has it: folded from the journal, record by record; the read models are not asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spanfold.language.errors import NotFound
from spanfold.language.json_values import time_text
from spanfold.language.topics import TRACES
from spanfold.operations.erasure import erasures_of
from spanfold.operations.installation import Installation
from spanfold.operations.trace.fold import FoldedTrace, Row, Step, fold_trace
from spanfold.operations.trace.log import AsOf, LoggedRecord, as_of, before, records_of, similar
from spanfold.operations.trace.pruned import Pruned, pruned_of
from spanfold.operations.trace_ids import id_of_trace_hex

TIMES: Final = ("start_time", "end_time", "last_event_at")
"""Columns that are times."""

NAMED_RECORDS: Final = 3
"""So many records are named of a trace that nothing has been folded of."""


class UnknownTrace(NotFound):
    """The log has nothing of this trace that could be folded."""


@dataclass(frozen=True, slots=True)
class TraceHistory:
    """A trace after the records that were looked at, with a step for each of them. `nothing` says why nothing could be folded,
    where that is so; `pruned` what may be missing.
    """

    folded: FoldedTrace
    nothing: str | None
    pruned: Pruned | None


@dataclass(frozen=True, slots=True)
class TraceView:
    """A trace and its spans, with the columns of spanfold.traces and spanfold.spans, and its history where that was asked for;
    times are RFC 3339.
    """

    trace: Mapping[str, Any]
    spans: Sequence[Mapping[str, Any]]
    journal_retention: Pruned | None
    history: Sequence[Mapping[str, Any]] | None


def read_trace(installation: Installation, trace_id: str, until: str | None = None, history: bool = False) -> TraceView:
    """The trace with this id, or else with this trace_hex, as the log has it; `until` a time (RFC 3339) or an offset of its
    partition, only what the log had before it. UnknownTrace when nothing of it has been folded.
    """
    outcome = trace_history(installation, trace_id, until)
    if outcome.folded.trace is None:
        raise UnknownTrace(str(outcome.nothing))
    return view_of(outcome, history=history)


def trace_history(installation: Installation, trace_id: str, until: str | None = None) -> TraceHistory:
    """The same with each step, also of a trace that nothing has been folded of."""
    limit, dsn = as_of(until), installation.dsn
    trace_id, records = _records(dsn, trace_id)
    seen = before(records, limit)
    folded, pruned = fold_trace(trace_id, seen), pruned_of(dsn, trace_id)
    if folded.trace is not None:
        return TraceHistory(folded, None, pruned)
    why = _why_nothing(dsn, trace_id, records, seen, limit)
    return TraceHistory(folded, why if pruned is None else f"{why}. And {pruned}", pruned)


def _records(dsn: str, given: str) -> tuple[str, list[LoggedRecord]]:
    """The id of the trace that is meant, and its records."""
    records = records_of(dsn, given)
    if not records and (trace_id := id_of_trace_hex(dsn, given)) is not None:
        return trace_id, records_of(dsn, trace_id)
    return given, records


def view_of(outcome: TraceHistory, *, history: bool) -> TraceView:
    """What programs get of a trace."""
    folded = outcome.folded
    return TraceView(
        trace=_with_times(folded.trace or {}),
        spans=[_with_times(span) for span in folded.spans],
        journal_retention=outcome.pruned,
        history=[_step(step) for step in folded.steps] if history else None,
    )


def _why_nothing(
    dsn: str, trace_id: str, records: Sequence[LoggedRecord], seen: Sequence[LoggedRecord], limit: AsOf
) -> str:
    if erasures := erasures_of(dsn, trace_id):
        return f"trace {trace_id} was erased: {'; '.join(map(str, erasures.values()))}"
    nothing = f"nothing of trace {trace_id} has been folded"
    if seen:
        count = "1 record" if len(seen) == 1 else f"{len(seen)} records"
        some = ", ".join(
            f"{record.position} {record.event_type} {record.reason or record.verdict}"
            for record in seen[:NAMED_RECORDS]
        )
        more = ", …" if len(seen) > NAMED_RECORDS else ""
        return f"{nothing}: the log has {count} of it ({some}{more}); see --history and `spanfold parked list`"
    if records:
        first = records[0]
        return f"{nothing} {limit}: its first record is {first.position}, in the log since {time_text(first.log_time)}"
    if alike := similar(dsn, trace_id):
        return f"{nothing}: the journal has no record of it. Did you mean {' or '.join(alike)}?"
    return (
        f"{nothing}: the journal has no record of it, nor of any that begins with it. If it was published just now, wait "
        "a moment: `spanfold status` shows how far the workers are"
    )


def _step(step: Step) -> dict[str, Any]:
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
    return row | {name: time_text(row[name]) for name in TIMES if row.get(name) is not None}
