"""Who sends: what a resource says of its service."""

from typing import Final

from opentelemetry.sdk.resources import Resource

from producers.attributes import text_of

NS_PER_US: Final = 1000


def service_of(resource: Resource) -> str:
    """service.name, else `unknown_service`."""
    return text_of(str(resource.attributes.get("service.name") or "unknown_service"))


def source_of(resource: Resource) -> str:
    """service.name, and service.instance.id where there is one."""
    instance = resource.attributes.get("service.instance.id")
    return f"{service_of(resource)}/{text_of(str(instance))}" if instance else service_of(resource)
