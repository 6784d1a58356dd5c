"""Is everything here that spanfold needs, and if not, what to do: machine.py looks at this machine, servers.py at the servers."""

from collections.abc import Callable, Iterator, Sequence

from spanfold.operations.doctor.checks import Check, CheckState
from spanfold.operations.doctor.machine import machine_checks
from spanfold.operations.doctor.servers import end_checks, server_checks, worker_checks
from spanfold.operations.installation import Installation

__all__ = ["Check", "CheckState", "diagnose"]


def diagnose(installation: Installation) -> Sequence[Check]:
    """All checks, in the order in which to read them. Changes nothing."""
    rooms: tuple[Callable[[Installation], Iterator[Check]], ...] = (
        machine_checks,
        server_checks,
        worker_checks,
        end_checks,
    )
    return [check for checks in rooms for check in checks(installation)]
