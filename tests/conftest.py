"""Registers the fixtures that the tests share, once."""

import signal

pytest_plugins = [
    "tests.support.servers",
    "tests.support.databases",
    "tests.support.topics",
    "tests.support.processes",
    "tests.support.commands",
    "tests.support.workers",
    "tests.support.api",
    "tests.support.victims",
    "tests.support.markers",
]

# a job that a script runs in the background ignores SIGINT, and so would all that it starts; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)
