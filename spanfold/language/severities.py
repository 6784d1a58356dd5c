"""Severities of log records: OpenTelemetry's numbers, 1 to 24, and their names; 0 is a severity that nobody knows."""

from typing import Final

from spanfold.language.errors import InvalidInput

SEVERITIES: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
"""The first number of each name: ERROR is 17, ERROR2 18, ERROR3 19, ERROR4 20."""

NAMES: Final = tuple(f"{name}{step or ''}" for name in SEVERITIES for step in (0, 2, 3, 4))

MAX_SEVERITY: Final = len(NAMES)


def severity_number(severity: str) -> int:
    """The number of a severity that is written as a name or as a number. InvalidInput when it is neither."""
    if severity.upper() in NAMES:
        return NAMES.index(severity.upper()) + 1
    if severity.isascii() and severity.isdecimal() and int(severity) <= len(NAMES):
        return int(severity)
    names = ", ".join(SEVERITIES)
    raise InvalidInput(f"severity: expected one of {names}, or a number from 0 to {len(NAMES)}, got {severity!r}")
