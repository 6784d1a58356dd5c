"""Outages of a whole stack under load: `python -m tests.outages`, or `make outages`."""
