"""The error tree: an error says whose turn it is. It is translated once, at the edge (exit codes in spanfold/cli).

SpanfoldError
  InvalidInput        the caller's fault: what was given is wrong and never retried             exit code 2
    NotFound          what was named does not exist                                              exit code 1
  CommandRefused      the caller's fault: the command violates a rule of its aggregate           exit code 2
  Misconfigured       the operator's fault: settings, topics or tables are not as they must be  exit code 3
  LogUnavailable      Kafka's fault: worth retrying                                              exit code 4
  StoreUnavailable    Postgres' fault: worth retrying                                            exit code 4
  PoisonRecord        no retry will help: the record is parked with its reason
"""

from spanfold.language.parking import ParkedReason


class SpanfoldError(Exception):
    """Base of every error that spanfold raises on purpose. The message names what was wrong and what to do."""

    exit_code = 1


class InvalidInput(SpanfoldError):
    """What the caller gave can't be used: a wrong field, a value out of range, an unknown event type."""

    exit_code = 2


class NotFound(InvalidInput):
    """What the caller named does not exist: nothing is known of a trace, no such parked record."""

    exit_code = 1


class CommandRefused(SpanfoldError):
    """The command violates a rule in the aggregate's current state. The message says why, and what would be allowed."""

    exit_code = 2


class Misconfigured(SpanfoldError):
    """Settings, topics or tables differ from what must hold; nothing was changed."""

    exit_code = 3


class LogUnavailable(SpanfoldError):
    """Kafka can't be reached, or did not acknowledge in time."""

    exit_code = 4


class StoreUnavailable(SpanfoldError):
    """Postgres can't be reached."""

    exit_code = 4


class PoisonRecord(SpanfoldError):
    """A record can't become rows: it is parked for this reason, with what exactly was wrong."""

    def __init__(self, reason: ParkedReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
