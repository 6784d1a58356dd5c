"""What an operator does to an installation, as functions: the command line, the HTTP API and Python call the same ones.

Each takes an `Installation` (spanfold.bootstrap.installation) and returns a frozen dataclass. None of them prints: what takes
long reports to a `ProgressListener`. Errors are those of spanfold.language.errors.
"""
