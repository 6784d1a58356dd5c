"""`spanfold compact`: lets go of what the settings allow and nothing needs any more.

parts.py says what a part of the work is; log.py, journals.py and tables.py each plan their parts and carry them out;
running.py plans all of it and does it. Whatever is killed in between is gone on with by the next call.
"""

from spanfold.stream_processors.prune.parts import Part
from spanfold.stream_processors.prune.pruning import Audience, Compaction, compaction

__all__ = ["Audience", "Compaction", "Part", "compaction"]
