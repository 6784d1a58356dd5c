"""Why accepted records are parked: the one list of reasons. A new reason is a member here and a PoisonRecord that names it."""

from enum import StrEnum


class ParkedReason(StrEnum):
    """Why an accepted record can't be folded here and now. `meaning` says what is wrong, and what repairs it."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "ParkedReason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    UNREADABLE = "unreadable", "the value is null, not framed, or not an Avro record of its schema"
    UNKNOWN_SCHEMA = (
        "unknown_schema",
        "nobody here knows the schema id (upgrade spanfold or install the package, then retry)",
    )
    CONTRADICTION = "contradiction", "payload and headers disagree on event id, time, type or aggregate"
    INVALID = (
        "invalid",
        "a value that can't become a row (a NUL in a text, a time that Postgres lacks, an end before its start, an event of "
        "another topic)",
    )
    REFUSED = "refused", "Postgres refused the row (repair the tables, then retry)"
    TOO_LARGE = (
        "too_large",
        "the value is larger than SPANFOLD_MAX_VALUE_BYTES; the log keeps its bytes (raise the setting, then retry)",
    )
    BEHIND = "behind", "on a conditional topic an earlier record of its aggregate is parked (settle that one)"


def explained(separator: str) -> str:
    """The reasons with their meanings, for help texts."""
    return separator.join(f"{reason}: {reason.meaning}" for reason in ParkedReason)
