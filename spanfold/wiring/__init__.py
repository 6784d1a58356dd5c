"""Puts the adapters together: what a process needs, from its settings."""
