"""Where telemetry comes from: the service, from the attributes of OpenTelemetry's resource, and the instrumentation scope."""

from collections.abc import Mapping
from typing import Any, Final, Protocol, TypedDict

from spanfold.language.events import Tags
from spanfold.producers.attributes import tags_of, text_of

NS_PER_US: Final = 1000

_MOST_ORIGINS: Final = 1000


class Origin(TypedDict):
    """The fields of events that are the same for all of one resource and scope."""

    service_name: str
    source: str
    resource: Tags
    scope_name: str
    scope_version: str
    scope_attributes: Tags


class _Resource(Protocol):
    @property
    def attributes(self) -> Mapping[str, Any]: ...


class _Scope(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, Any] | None: ...


def origin_of(resource: Mapping[str, Any]) -> Origin:
    """The origin of what has this resource, and no scope."""
    return {
        "service_name": service_of(resource),
        "source": source_of(resource),
        "resource": tags_of(resource),
        "scope_name": "",
        "scope_version": "",
        "scope_attributes": {},
    }


def within_scope(
    origin: Origin, name: str, version: str | None = None, attributes: Mapping[str, Any] | None = None
) -> Origin:
    """The same origin with this scope."""
    return {
        **origin,
        "scope_name": text_of(name),
        "scope_version": text_of(version or ""),
        "scope_attributes": tags_of(attributes),
    }


class Origins:
    """The origins of the SDK's resources and scopes, made once for two objects: they are immutable, and applications have few."""

    def __init__(self) -> None:
        # the objects are kept, so that no other one gets their id
        self._known: dict[tuple[int, int], tuple[Origin, _Resource, _Scope | None]] = {}

    def of(self, resource: _Resource, scope: _Scope | None) -> Origin:
        """The origin of what has this resource and this scope."""
        known = self._known.get((id(resource), id(scope)))
        if known is None:
            if len(self._known) >= _MOST_ORIGINS:
                self._known.clear()
            known = self._known[id(resource), id(scope)] = (_made(resource, scope), resource, scope)
        return known[0]


def service_of(attributes: Mapping[str, Any]) -> str:
    """service.name, else `unknown_service`."""
    return text_of(str(attributes.get("service.name") or "unknown_service"))


def source_of(attributes: Mapping[str, Any]) -> str:
    """service.name, and service.instance.id where there is one."""
    instance = attributes.get("service.instance.id")
    return f"{service_of(attributes)}/{text_of(str(instance))}" if instance else service_of(attributes)


def _made(resource: _Resource, scope: _Scope | None) -> Origin:
    origin = origin_of(resource.attributes)
    return within_scope(origin, scope.name, scope.version, scope.attributes) if scope else origin
