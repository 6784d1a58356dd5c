"""Errors over HTTP: problem details of RFC 9457, `application/problem+json`, with the status that language/errors.py lists.

| status | when                                                                       | whose turn it is            |
|--------|----------------------------------------------------------------------------|-----------------------------|
| 400    | the body is no JSON object                                                 | the caller's                |
| 404    | no handler for the type (`known` lists those that exist), or what an       | the caller's                |
|        | operation is to work on does not exist                                     |                             |
| 408    | the body did not arrive in time                                            | the caller's                |
| 409    | a rule refuses the command, or other appends keep coming between: `actual` | the caller's, after a look  |
| 410    | the requested events are no longer kept                                    | the caller's                |
| 413    | the body is too large                                                      | the caller's                |
| 415    | an operation's fields are not sent as application/json                     | the caller's                |
| 422    | a field is wrong, missing or unknown, or the log rejects the event         | the caller's                |
| 500    | the installation is misconfigured, or a parked record blocks the           | the operator's              |
|        | aggregate: `position`                                                      |                             |
| 503    | Kafka or Postgres is away, or an outcome is unknown: `event_id`            | send the same again later   |
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse

from spanfold.application.event_store import Compacted, Conflict, HeldUp, OutcomeUnknown, Rejected
from spanfold.application.messages import NotYetReflected, UnknownMessage
from spanfold.language.errors import SpanfoldError
from spanfold.language.ids import id_text

RETRY_AFTER_S: Final = 2
MEDIA_TYPE: Final = "application/problem+json"


def problem_of(error: SpanfoldError, known: Sequence[str] = ()) -> JSONResponse:
    """The answer to a request that ended in this error; `known` are the types that have a handler."""
    status = error.http_status
    retry = {"Retry-After": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return problem(status, type(error).__name__, str(error), headers=retry, **_details(error, known))


def problem(
    status: HTTPStatus, title: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Problem details; `title` names the error's kind, `detail` says what was wrong and what to do."""
    body = {"type": "about:blank", "title": title, "status": status.value, "detail": detail, **more}
    return JSONResponse(body, status.value, headers=headers, media_type=MEDIA_TYPE)


def _details(error: SpanfoldError, known: Sequence[str]) -> dict[str, Any]:
    match error:
        case UnknownMessage():
            return {"known": list(known)}
        case Conflict():
            return {"expected": error.expected, "actual": error.actual}
        case Rejected():
            return {"verdict": error.verdict}
        case OutcomeUnknown():
            return {
                "event_id": id_text(error.event_id),
                "topic": error.topic.name,
                "aggregate_id": error.aggregate_id,
            }
        case NotYetReflected():
            return {"positions": [str(position) for position in error.positions]}
        case HeldUp():
            return {"position": str(error.position)}
        case Compacted():
            return {"first_kept": error.first_kept}
        case _:
            return {}
