"""The aggregate of a service's instance, on the conditional topic spanfold.services: each record is one version."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, assert_never

from spanfold.application.aggregates.base import Aggregate
from spanfold.application.domain.services import Health, health_named
from spanfold.application.messages import DomainCommand
from spanfold.language.errors import CommandRefused
from spanfold.language.events import (
    ServiceDeregistered,
    ServiceEvent,
    ServiceHealthChanged,
    ServiceRegistered,
    events_of,
)
from spanfold.language.topics import SERVICES


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterService(DomainCommand):
    """The instance `aggregate_id` can be called from now on. Registering an id again replaces what was said of it."""

    service_name: str
    host: str
    port: int
    health_check_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: Health = Health.STARTING


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeServiceHealth(DomainCommand):
    """The instance is as healthy as `status` says; `reason` says what showed it."""

    status: Health
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeregisterService(DomainCommand):
    """The instance must not be called any more."""

    reason: str = ""


ServiceCommand = RegisterService | ChangeServiceHealth | DeregisterService


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInstance:
    """A running instance of a service; `name` is the service's, `health_check_url` answers GET with 2xx while it is healthy."""

    id: str
    name: str
    host: str
    port: int
    health_check_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: Health | str = Health.STARTING


@dataclass(frozen=True, slots=True)
class ServiceState:
    """`instance` is None while nothing is registered under the id."""

    instance_id: str
    instance: ServiceInstance | None = None


class ServiceAggregate(Aggregate[ServiceState]):
    """A service's instance."""

    topic = SERVICES
    events = events_of(SERVICES)
    commands = (RegisterService, ChangeServiceHealth, DeregisterService)
    snapshot = "ServiceInstanceSnapshot"

    @staticmethod
    def is_closed(state: ServiceState) -> bool:
        return state.instance is None

    @staticmethod
    def initial(aggregate_id: str) -> ServiceState:
        return ServiceState(aggregate_id)

    @staticmethod
    def decide(state: ServiceState, command: ServiceCommand) -> Sequence[ServiceEvent]:
        said: dict[str, Any] = {
            "aggregate_id": state.instance_id,
            "occurred_at": command.timestamp,
            "source": command.source,
        }
        match command:
            case RegisterService():
                return [_registered(command, said)]
            case ChangeServiceHealth():
                if state.instance is None:
                    raise CommandRefused(f"instance {state.instance_id} is not registered: register it first")
                if state.instance.status == command.status:
                    return []
                return [ServiceHealthChanged(status=command.status.value, reason=command.reason, **said)]
            case DeregisterService():
                return [] if state.instance is None else [ServiceDeregistered(reason=command.reason, **said)]

    @staticmethod
    def evolve(state: ServiceState, event: ServiceEvent) -> ServiceState:
        match event:
            case ServiceRegistered():
                return replace(state, instance=_instance(event))
            case ServiceHealthChanged():
                changed = state.instance and replace(state.instance, status=health_named(event.status))
                return replace(state, instance=changed)
            case ServiceDeregistered():
                return replace(state, instance=None)
            case unknown:
                assert_never(unknown)

    @staticmethod
    def as_plain(state: ServiceState) -> Mapping[str, Any]:
        instance = state.instance and {**asdict(state.instance), "status": str(state.instance.status)}
        return {"instance_id": state.instance_id, "instance": instance}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> ServiceState:
        said = plain["instance"]
        instance = said and ServiceInstance(**{**said, "status": health_named(said["status"])})
        return ServiceState(plain["instance_id"], instance)


def _registered(command: RegisterService, said: Mapping[str, Any]) -> ServiceRegistered:
    return ServiceRegistered(
        service_name=command.service_name,
        host=command.host,
        port=command.port,
        health_check_url=command.health_check_url,
        metadata=command.metadata,
        status=command.status.value,
        **said,
    )


def _instance(event: ServiceRegistered) -> ServiceInstance:
    return ServiceInstance(
        id=event.aggregate_id,
        name=event.service_name,
        host=event.host,
        port=event.port,
        health_check_url=event.health_check_url,
        metadata=event.metadata,
        status=health_named(event.status),
    )
