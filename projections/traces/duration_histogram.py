"""Buckets of durations: exact below 32 µs, then sixteen per power of two, so that a bound is at most 6.25 % off.

Integers only: the bucket of a duration is the same on every machine. spanfold_core.bucket_upper_ms is the inverse in SQL.
"""

from typing import Final

SUB_BUCKET_BITS: Final = 4
_EXACT: Final = 2 << SUB_BUCKET_BITS


def bucket_of(duration_us: int) -> int:
    """The bucket of a duration in µs, 0 to 975. Needs 0 <= duration_us < 2^64."""
    if duration_us < _EXACT:
        return duration_us
    exponent = duration_us.bit_length() - 1 - SUB_BUCKET_BITS
    return (exponent << SUB_BUCKET_BITS) + (duration_us >> exponent)
