"""The settings of a connection without security, for brokers that spanfold starts itself."""

from collections.abc import Mapping
from typing import Any, Final

from spanfold.kafka.security import SASL_FIELDS, TLS_FILES
from spanfold.language.settings import Settings

NO_SECURITY: Final[Mapping[str, Any]] = {
    name: Settings.model_fields[name].default
    for name in ("kafka_security_protocol", *SASL_FIELDS, *TLS_FILES, "kafka_ssl_key_password")
}
"""The fields of a plain connection, whatever the environment says: an embedded broker has no authentication."""

NO_SECURITY_IN_ENVIRONMENT: Final[Mapping[str, str]] = {
    f"SPANFOLD_{name.upper()}": value if isinstance(value, str) else "" for name, value in NO_SECURITY.items()
}
"""The same as environment variables, for a process that is started."""
