"""Servers for the tests of this folder, apart from everybody else's: they are killed here."""

from collections.abc import Iterator

import pytest

from tests.faults.servers import Servers


@pytest.fixture(scope="session")
def victims() -> Iterator[Servers]:
    """One broker and Postgres."""
    with Servers() as servers:
        yield servers
