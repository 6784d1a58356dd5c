"""The settings reference, docs/settings.md, made from the settings class: `python -m spanfold.language.settings_reference`."""

from collections.abc import Iterator
from typing import Any, Final

from spanfold.language.settings import Settings

_HEAD: Final = """\
# Settings

Every process reads its settings from environment variables. For text, an empty value is the same as none. An invalid value stops
the process with exit code 3 and a message that names the variable.

<!-- Generated from spanfold/language/settings.py by `make docs`; edit the descriptions there. -->

| variable | value | default | meaning |
|---|---|---|---|
"""

_TAIL: Final = """
Kafka's security settings apply to every client: publishers, workers, and the commands.

## Other variables

| variable | meaning |
|---|---|
| `SPANFOLD_NOTIFICATION_ENABLED` | `true`: `TelemetryApplicationService` notifies about traces |
| `SPANFOLD_MAVEN_MIRROR` | base URL from which the embedded stack downloads Kafka's jars instead of Maven Central |
| `SPANFOLD_POSTGRES_USER` | unprivileged user that runs the embedded Postgres if the stack is started by root; default `nobody` |
| `SPANFOLD_TEST_KAFKA`, `SPANFOLD_TEST_POSTGRES` | servers for the tests; both or neither |
"""


def reference() -> str:
    """The page, in Markdown."""
    properties = Settings.model_json_schema()["properties"]
    rows = (_row(name, schema) for name, schema in properties.items())
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + _TAIL


def _row(name: str, schema: dict[str, Any]) -> tuple[str, str, str, str]:
    variable = f"`{Settings.model_config['env_prefix']}{name.upper()}`"
    return variable, _value(schema), _default(name), schema["description"]


def _value(schema: dict[str, Any]) -> str:
    """What the variable may hold: its type, and its limits or choices."""
    if choices := schema.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices if choice)
    (kind,) = {schema.get("type", ""), *(one["type"] for one in schema.get("anyOf", ()))} - {"", "null"}
    words = {"string": "text", "number": "number", "integer": "integer", "boolean": "`true` or `false`"}
    return f"{words.get(kind, 'JSON object')}{''.join(_limits(schema))}"


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    for key, words in {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}.items():
        if key in schema:
            yield f" {words} {schema[key]:,}"
    if "pattern" in schema:
        yield f" matching `{schema['pattern']}`"


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is dict:
        return "`{}`"
    if field.default_factory is not None:
        return str(field.default_factory.__doc__).rstrip(".")
    value = field.default.get_secret_value() if hasattr(field.default, "get_secret_value") else field.default
    if value in (None, ""):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
