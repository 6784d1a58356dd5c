"""Buckets of histograms by their upper bound, as text: the shortest that reads back as the same double, 'Infinity' for the
last. spanfold.quantile and spanfold.histogram_sum read them.

The bounds of exponential buckets are powers of 2^(2^-scale). They are computed from square roots in decimal and rounded once:
pow() may differ between machines in the last digit, and then so would the rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate, repeat
from math import inf, isinf, ldexp
from typing import Any, Final

from spanfold.projections.commit.checks import MAX_SCALE

_MAX_EXPONENT: Final = 1023
_CONTEXT: Final = Context(prec=50)
_ROOTS: Final = tuple(accumulate(repeat(None, MAX_SCALE), lambda root, _: _CONTEXT.sqrt(root), initial=Decimal(2)))
"""2^(2^-k) at index k, up to the greatest scale."""


def buckets_of(measured: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """(upper bound, count) of every bucket that is not empty, of either kind of histogram."""
    if measured["kind"] == "histogram":
        uppers = _uppers(tuple(measured["bounds"]))
        return [pair for pair in zip(uppers, measured["bucket_counts"], strict=False) if pair[1]]
    return _exponential(measured)


@lru_cache(maxsize=1024)
def _uppers(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(bound_text, bounds), "Infinity")


def _exponential(measured: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    scale = measured["scale"]
    if measured["zero_count"]:
        yield "0", measured["zero_count"]
    # (base^i, base^(i+1)] on the positive side, [-base^(i+1), -base^i) on the negative one
    for index, count in _filled(measured["positive_offset"] + 1, measured["positive_counts"]):
        yield bound_text(power(scale, index)), count
    for index, count in _filled(measured["negative_offset"], measured["negative_counts"]):
        yield bound_text(-power(scale, index)), count


def _filled(first: int, counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((index, count) for index, count in enumerate(counts, first) if count)


@lru_cache(maxsize=65536)
def power(scale: int, index: int) -> float:
    """The double nearest to 2^(index * 2^-scale), the same on every machine; infinite beyond the greatest double."""
    if scale <= 0:
        exponent, rest = index << -scale, 0
    else:
        exponent, rest = index >> scale, index & ((1 << scale) - 1)
    if exponent > _MAX_EXPONENT:
        return inf
    mantissa = Decimal(1)
    for bit in range(scale):
        if rest >> bit & 1:
            mantissa = _CONTEXT.multiply(mantissa, _ROOTS[scale - bit])
    return ldexp(float(mantissa), exponent)


def bound_text(bound: float) -> str:
    """5 for 5.0, 0.005, 1e-05, Infinity."""
    if isinf(bound):
        return "Infinity" if bound > 0 else "-Infinity"
    # + 0.0: there is one zero
    return repr(bound + 0.0).removesuffix(".0")
