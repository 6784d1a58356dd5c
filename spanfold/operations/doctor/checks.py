"""What a check of the doctor says."""

from dataclasses import dataclass
from enum import StrEnum


class CheckState(StrEnum):
    """Whether a check found all well; `fail` is what keeps spanfold from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    state: CheckState
    finding: str
    advice: str = ""
