"""json and jsonb in Python, read as spanfold.language.documents reads JSON: a number beyond 64 bits is a double.

Postgres writes the jsonb number 1e20 as an integer of 21 digits. Python's json would read it as an integer, which an encoder of
64 bits can't write again.
"""

import orjson
from psycopg.abc import AdaptContext
from psycopg.types.json import set_json_loads


def use(context: AdaptContext) -> None:
    """From now on this connection or cursor reads json and jsonb so."""
    set_json_loads(orjson.loads, context)
