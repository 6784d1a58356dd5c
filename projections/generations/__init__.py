"""Generations of a projection's tables: created, loaded, compared, swapped, dropped; and the public views."""
