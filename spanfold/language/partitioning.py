"""Which partition a key belongs to: murmur2, as Java's clients compute it (org.apache.kafka.common.utils.Utils#murmur2).

`same key, same partition` holds only if everyone hashes alike: librdkafka's default is CRC32, Java's and aiokafka's is
murmur2. spanfold's publishers set `partitioner=murmur2_random`, and every record is checked against this on arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_M = 0x5BD1E995
_SEED = 0x9747B28C


def partitions_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int32]:
    """The partition of each key, shape (len(keys),). Vectorised over keys of equal length."""
    import numpy as np  # here: commands that only ask import this module, and hash nothing

    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        joined = b"".join([keys[i] for i in chosen.tolist()])
        hashes[chosen] = _murmur2(np.frombuffer(joined, np.uint8).reshape(len(chosen), int(length)))
    return ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)


def _murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """murmur2 of n keys of one length; `keys` has shape (n, length)."""
    import numpy as np

    count, length = keys.shape
    m = np.uint32(_M)
    h = np.full(count, (_SEED ^ length) & 0xFFFFFFFF, np.uint32)
    whole = length & ~3
    words = np.ascontiguousarray(keys[:, :whole]).view("<u4") if whole else np.empty((count, 0), np.uint32)
    for column in range(words.shape[1]):
        k = words[:, column] * m
        k ^= k >> np.uint32(24)
        h = (h * m) ^ (k * m)
    tail = keys[:, whole:].astype(np.uint32)
    if tail.shape[1]:
        for column in range(tail.shape[1]):
            h ^= tail[:, column] << np.uint32(8 * column)
        h *= m
    h ^= h >> np.uint32(13)
    h *= m
    h ^= h >> np.uint32(15)
    return h
