"""The sending service, from the attributes of OpenTelemetry's resource."""

from collections.abc import Mapping
from typing import Any, Final

from spanfold.producers.attributes import text_of

NS_PER_US: Final = 1000


def service_of(attributes: Mapping[str, Any]) -> str:
    """service.name, else `unknown_service`."""
    return text_of(str(attributes.get("service.name") or "unknown_service"))


def source_of(attributes: Mapping[str, Any]) -> str:
    """service.name, and service.instance.id where there is one."""
    instance = attributes.get("service.instance.id")
    return f"{service_of(attributes)}/{text_of(str(instance))}" if instance else service_of(attributes)
