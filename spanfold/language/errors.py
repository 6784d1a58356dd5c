"""The error tree: which error says that it is whose turn. Every error that spanfold raises on purpose is named here, wherever its
class is, with the exit code of a command and the HTTP status of the API that end in it. Both are translated once, at the edge:
spanfold/cli/__init__.py and spanfold/http/problems.py.

                         exit  HTTP
  SpanfoldError             1   500   whoever reads the message
    InvalidInput            2   422   the caller: what was given is wrong, and never retried
      NotFound              1   404   the caller: what was named does not exist
        UnknownTrace        1   404   the caller: the log has nothing of the trace that could be folded
      UnknownMessage        2   404   the caller: no handler for messages of this type
      MalformedBody         2   400   the caller: a request body that can't be parsed or decompressed
      BodyTooSlow           2   408   the caller: a request body that did not arrive in time
      BodyTooLarge          2   413   the caller: a request body beyond its limit
      UnsupportedMediaType  2   415   the caller: a Content-Type or Content-Encoding that is not accepted
    CommandRefused          2   409   the caller: the command violates a rule in the aggregate's current state
    Rejected                2   422   the caller: the log has rejected the append, for ever
      Conflict              2   409   the caller: the aggregate was at another version; load it, decide again
    Compacted               1   410   the caller: the requested events are no longer kept; start from a snapshot
    OutcomeForgotten        1   410   the caller: the journal no longer knows what became of the event
    HeldUp                  3   500   the operator: a parked record blocks its aggregate; settle it
    Misconfigured           3   500   the operator: settings, topics or tables differ from what must hold
      MissingPart           3   500   the operator: Java, a user or the `embedded` extra is missing
      JarMismatch           3   500   the operator: a downloaded jar is not the locked one; check the mirror
      HomeInUse             3   500   the operator: another stack runs on this home
      RowsDiffer            1   500   the operator: a rebuilt projection differs from the live one
    ChildFailed             4   500   the operator: a server did not start; read its log
    WorkersNotReady         1   500   the operator: restarted workers do not get ready; read their logs
    StartFailed             1   500   the operator: `up --detach` failed (with the exit code of its process)
    Differs                 1   500   the operator: the demo's counts of SDK, log and Postgres are not the same
    LogUnavailable          4   503   nobody: Kafka is away; worth retrying
      OutcomeUnknown        4   503   the caller: no verdict in time; ask for the outcome, or send the same again
      DownloadFailed        4   503   nobody: the jars can't be fetched; the next try resumes
    StoreUnavailable        4   503   nobody: Postgres is away; worth retrying
    NotYetReflected         4   503   the caller: the read models have not reached a position; ask again
    CallNotPermitted        4   500   nobody: a circuit breaker is open; try again later
    NotificationFailed      4   500   nobody: a notification did not get through; try again later
    PoisonRecord            1   500   nobody: no retry will help, so the record is parked with its reason
    TopicSuspended          3   500   the operator: a topic's verdicts stand still; repair the cause, then resume it
    ParkedShareExceeded     1   500   the worker: too much of a topic would be parked; it suspends the topic
    Gap                     1   500   the worker: a checkpoint lies before the batch; it reads from there again
    NotJudgedYet            1   500   the worker: the journal is behind the batch; it waits
    ProjectionFailed        3   500   the operator: a projection's own code or tables fail; repair it, then resume or rebuild
    Postponed               1   500   a rebuild: a reader or a commit is in the way; it tries again
"""

from http import HTTPStatus

from spanfold.language.parking import ParkedReason


class SpanfoldError(Exception):
    """Base of every error that spanfold raises on purpose. The message names what was wrong and what to do."""

    exit_code = 1
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR


class InvalidInput(SpanfoldError):
    """What the caller gave can't be used: a wrong field, a value out of range, an unknown event type."""

    exit_code = 2
    http_status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotFound(InvalidInput):
    """What the caller named does not exist: nothing is known of a trace, no such parked record."""

    exit_code = 1
    http_status = HTTPStatus.NOT_FOUND


class CommandRefused(SpanfoldError):
    """The command violates a rule in the aggregate's current state. The message says why, and what would be allowed."""

    exit_code = 2
    http_status = HTTPStatus.CONFLICT


class Misconfigured(SpanfoldError):
    """Settings, topics or tables differ from what must hold; nothing was changed."""

    exit_code = 3


class LogUnavailable(SpanfoldError):
    """Kafka can't be reached, or did not acknowledge in time."""

    exit_code = 4
    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class StoreUnavailable(SpanfoldError):
    """Postgres can't be reached, or did not answer in time."""

    exit_code = 4
    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class PoisonRecord(SpanfoldError):
    """A record can't become rows: it is parked for this reason, with what exactly was wrong."""

    def __init__(self, reason: ParkedReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
