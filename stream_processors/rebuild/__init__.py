"""Rebuilding a projection beside the live tables: replay, load, compare, hand over; verify, follow and as-of."""
