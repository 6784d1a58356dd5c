"""Authentication and TLS towards Kafka: from the settings to the options of librdkafka and ssl."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from spanfold.language.errors import Misconfigured

if TYPE_CHECKING:
    from spanfold.language.settings import Settings

TLS_FILES: Final = ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile")
SASL_FIELDS: Final = ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")


def uses_sasl(settings: Settings) -> bool:
    """Whether the client logs in with a name and a password."""
    return settings.kafka_security_protocol.startswith("SASL")


def uses_tls(settings: Settings) -> bool:
    """Whether the connection is encrypted."""
    return settings.kafka_security_protocol.endswith("SSL")


def check_security(settings: Settings) -> None:
    """Misconfigured when the settings contradict each other, or name a file that does not exist."""
    if uses_sasl(settings):
        if missing := [name for name in SASL_FIELDS if not getattr(settings, name)]:
            raise Misconfigured(f"{_protocol(settings)} needs {_variables(missing)}")
    elif given := [name for name in SASL_FIELDS if getattr(settings, name)]:
        raise Misconfigured(f"{_variables(given)} would not be used: {_protocol(settings)} does not log in")
    files = [name for name in TLS_FILES if getattr(settings, name)]
    if files and not uses_tls(settings):
        raise Misconfigured(f"{_variables(files)} would not be used: {_protocol(settings)} is not encrypted")
    for name in files:
        if not Path(getattr(settings, name)).is_file():
            raise Misconfigured(f"{_variables([name])}={getattr(settings, name)}: no such file")
    if settings.kafka_ssl_keyfile and not settings.kafka_ssl_certfile:
        raise Misconfigured(f"{_variables(['kafka_ssl_keyfile'])} needs {_variables(['kafka_ssl_certfile'])}")


def librdkafka_security(settings: Settings) -> dict[str, Any]:
    """The options of librdkafka; none for a plain connection. Raises as check_security."""
    check_security(settings)
    if settings.kafka_security_protocol == "PLAINTEXT":
        return {}
    options = {
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "ssl.certificate.location": settings.kafka_ssl_certfile,
        "ssl.key.location": settings.kafka_ssl_keyfile or settings.kafka_ssl_certfile,
        "ssl.key.password": settings.kafka_ssl_key_password.get_secret_value(),
        "ssl.endpoint.identification.algorithm": "https" if settings.kafka_ssl_check_hostname else "none",
    }
    return {name: value for name, value in options.items() if value}


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The same for Python's ssl; None for a connection that is not encrypted. Raises as check_security."""
    check_security(settings)
    if not uses_tls(settings):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile or None)
        context.check_hostname = settings.kafka_ssl_check_hostname
        if settings.kafka_ssl_certfile:
            password = settings.kafka_ssl_key_password.get_secret_value()
            keyfile = settings.kafka_ssl_keyfile or None
            context.load_cert_chain(settings.kafka_ssl_certfile, keyfile, password)
    except OSError as error:  # ssl.SSLError is one
        files = _variables([name for name in TLS_FILES if getattr(settings, name)])
        raise Misconfigured(f"{files} can't be used: {error}") from error
    return context


def what_to_check(settings: Settings) -> str:
    """The settings that decide whether Kafka accepts this client, as advice."""
    names = ["kafka_security_protocol"]
    names += SASL_FIELDS if uses_sasl(settings) else ()
    names += ("kafka_ssl_cafile",) if uses_tls(settings) else ()
    names += ("kafka_ssl_certfile",) if uses_tls(settings) and settings.kafka_ssl_certfile else ()
    return f"check {_variables(names)}"


def _protocol(settings: Settings) -> str:
    return f"SPANFOLD_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol}"


def _variables(names: list[str]) -> str:
    return ", ".join(f"SPANFOLD_{name.upper()}" for name in names)
