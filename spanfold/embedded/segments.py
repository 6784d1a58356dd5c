"""The files of a partition's log on this machine's Kafka: one per segment, named by the offset of its first record."""

from itertools import accumulate
from pathlib import Path


def offset_of_newest(folder: Path, size: int) -> int | None:
    """Where the newest `size` bytes of the log in this folder begin: at the first record of the oldest segment that is wholly
    among them, or of the newest segment. None when the log has no more than that, or isn't there.
    """
    try:
        segments = sorted(((int(path.stem), path.stat().st_size) for path in folder.glob("*.log")), reverse=True)
    except (OSError, ValueError):
        return None
    totals = list(accumulate(length for _, length in segments))
    if not segments or totals[-1] <= size:
        return None
    kept = [offset for (offset, _), total in zip(segments, totals, strict=True) if total <= size]
    return kept[-1] if kept else segments[0][0]
