"""One run of the demo: the shop, the load, the wait until all rows are there, and the proof that nothing is missing."""

import uuid
from dataclasses import asdict, dataclass
from typing import Any

from spanfold.demo.counted import records_between
from spanfold.demo.load import Served, run_load
from spanfold.demo.processes import running_shop
from spanfold.demo.report import Report, read_report
from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.errors import SpanfoldError
from spanfold.language.progress import ProgressListener
from spanfold.language.settings import Settings
from spanfold.operations.visibility import wait_until_visible

VISIBLE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, from three witnesses: the services' SDKs, the log, and Postgres."""

    run: str
    served: Served
    services: dict[str, dict[str, int]]
    records: dict[str, int]
    errors: int
    points: int
    report: Report

    @property
    def spans_made(self) -> int:
        """Spans that the SDKs ended."""
        return sum(counts["spans"] for counts in self.services.values())

    def differences(self) -> list[str]:
        """What should be equal and isn't; empty when every span is in the log once and in Postgres once."""
        counts, records = self.report.counts, self.records
        ended = records.get("TraceCompleted", 0) + records.get("TraceFailed", 0)
        pairs = {
            "spans made, SpanRecorded in the log": (self.spans_made, records.get("SpanRecorded", 0)),
            "SpanRecorded in the log, rows in spanfold.spans": (records.get("SpanRecorded", 0), counts["spans"]),
            "spans made, spans that spanfold.traces counts": (self.spans_made, counts["spans_of_traces"]),
            "TraceCreated in the log, rows in spanfold.traces": (records.get("TraceCreated", 0), counts["traces"]),
            "traces ended in the log, ended rows": (ended, counts["completed"] + counts["failed"]),
            "metric points in the log, rows in spanfold.metric_points": (self.points, counts["points"]),
            "logged errors in the log, rows in spanfold.error_logs": (self.errors, counts["errors"]),
        }
        return [f"{what}: {one} and {other}" for what, (one, other) in pairs.items() if one != other]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "run": self.run,
            "requests": self.served.requests,
            "answers": {str(code): count for code, count in sorted(self.served.answers.items())},
            "seconds": round(self.served.seconds, 3),
            "spans_made": self.spans_made,
            "services": self.services,
            "records": self.records,
            "errors": self.errors,
            "points": self.points,
            "rows": self.report.counts,
            "differences": self.differences(),
            **{name: value for name, value in asdict(self.report).items() if name != "counts"},
        }


def run_demo(settings: Settings, progress: ProgressListener, *, seconds: float, spans: int | None) -> Outcome:
    """Run the shop under load against the Kafka and Postgres of the settings, where workers fold.

    `seconds` of load, or until `spans` are made. Raises what publishing, reading and waiting raise.
    """
    run, dsn = uuid.uuid4().hex[:12], str(settings.postgres_dsn)
    before = ends_of_log(settings)

    def watch(made: int, elapsed_s: float) -> None:
        if spans is None:
            progress.advanced(min(int(elapsed_s), int(seconds)), int(seconds), "seconds of load")
        else:
            progress.advanced(min(made, spans), spans, "spans")

    progress.step("starting the shop")
    with running_shop(settings, run) as shop:
        progress.step("customers are shopping")
        served = run_load(shop, seconds=seconds, spans=spans, watch=watch)
        services = shop.telemetry(flush=True)
    lost = sum(counts["failed"] + counts["dropped"] for counts in services.values())
    if lost:
        raise SpanfoldError(f"{lost} events did not reach Kafka: {services}")
    after = ends_of_log(settings)
    progress.step("waiting until every row is visible")
    wait_until_visible(dsn, after, VISIBLE_TIMEOUT_S)
    recorded = records_between(settings, before, after, run)
    report = read_report(dsn, run, list(recorded.series))
    return Outcome(run, served, services, dict(recorded.records), recorded.errors, recorded.points, report)
