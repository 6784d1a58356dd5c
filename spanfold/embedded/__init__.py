"""A real Kafka and a real Postgres on one machine, without Docker.

`EmbeddedStack` boots, supervises and stops them; `read_state` and `stop_running` are about one that another
process supervises. Only what starts a server needs the `embedded` extra, and says so where it is missing.
"""

from spanfold.embedded.programs import Program
from spanfold.embedded.stack import EmbeddedStack
from spanfold.embedded.stack_state import StackState, read_state, stop_running

__all__ = ["EmbeddedStack", "Program", "StackState", "read_state", "stop_running"]
