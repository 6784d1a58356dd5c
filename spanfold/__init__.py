"""spanfold: traces and metrics kept like a ledger.

The language of the project lives here (events, ids, topics, settings, errors: pure), and on top of it the embedded stack
and the command line. DESIGN.md has the map.
"""

__version__ = "0.1.0"
