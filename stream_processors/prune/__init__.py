"""`spanfold prune`: lets go of what the settings allow and nothing needs any more.

parts.py says what a part of the work is; log.py, journals.py and tables.py each plan their parts and carry them out;
pruning.py plans all of it and does it. Whatever is killed in between is gone on with by the next call.
"""

from spanfold.stream_processors.prune.parts import Part
from spanfold.stream_processors.prune.pruning import Audience, PrunePlan, prune_plan

__all__ = ["Audience", "Part", "PrunePlan", "prune_plan"]
