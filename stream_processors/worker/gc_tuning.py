"""Settings of Python itself, for processes that fold."""

import gc
import sys


def tune() -> None:
    """Batches are trees of dictionaries that reference counting frees; looking for cycles in them took a third of a worker's
    time. What lives from here on is young, and is looked at once in so many allocations. And the thread that feeds Postgres
    should not wait 5 ms for its turn each time, while the next batch is decoded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)
    sys.setswitchinterval(0.001)
