"""The aggregate of a service instance, on the conditional topic spanfold.services: each record is one version."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, assert_never

from spanfold.application.aggregates.base import Aggregate
from spanfold.application.domain.services import Health, InstanceStatus, health_of, status_named
from spanfold.application.messages import DomainCommand
from spanfold.language.errors import CommandRefused
from spanfold.language.events import (
    ServiceDeregistered,
    ServiceEvent,
    ServiceHealthChanged,
    ServiceRegistered,
    event_classes,
)
from spanfold.language.topics import SERVICES


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterService(DomainCommand):
    """Register the instance `aggregate_id`: it can be called. Registering an id again replaces its data."""

    service_name: str
    host: str
    port: int
    health_check_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: InstanceStatus = InstanceStatus.STARTING


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeServiceHealth(DomainCommand):
    """Change the status of the instance; `reason` says what the change is based on."""

    status: InstanceStatus
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeregisterService(DomainCommand):
    """Remove the instance: it must not be called any more."""

    reason: str = ""


ServiceCommand = RegisterService | ChangeServiceHealth | DeregisterService


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInstance:
    """A running instance of a service. `name` is the service's; `health_check_url` answers GET with 2xx while it is healthy."""

    id: str
    name: str
    host: str
    port: int
    health_check_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: InstanceStatus | str = InstanceStatus.STARTING

    @property
    def health(self) -> Health:
        """What its health checks say."""
        return health_of(self.status)

    @property
    def is_healthy(self) -> bool:
        return self.health is Health.HEALTHY


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The instance with this id; None while none is registered."""

    instance_id: str
    instance: ServiceInstance | None = None


class ServiceAggregate(Aggregate[ServiceState]):
    """A service instance."""

    topic = SERVICES
    events = event_classes(SERVICES)
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
        envelope: dict[str, Any] = {
            "aggregate_id": state.instance_id,
            "occurred_at": command.timestamp,
            "source": command.source,
        }
        match command:
            case RegisterService():
                return [_registered(command, envelope)]
            case ChangeServiceHealth():
                if state.instance is None:
                    raise CommandRefused(f"instance {state.instance_id} is not registered: register it first")
                if state.instance.status == command.status:
                    return []
                return [ServiceHealthChanged(status=command.status.value, reason=command.reason, **envelope)]
            case DeregisterService():
                return [] if state.instance is None else [ServiceDeregistered(reason=command.reason, **envelope)]

    @staticmethod
    def evolve(state: ServiceState, event: ServiceEvent) -> ServiceState:
        match event:
            case ServiceRegistered():
                return replace(state, instance=_instance(event))
            case ServiceHealthChanged():
                changed = state.instance and replace(state.instance, status=status_named(event.status))
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
        fields = plain["instance"]
        instance = fields and ServiceInstance(**{**fields, "status": status_named(fields["status"])})
        return ServiceState(plain["instance_id"], instance)


def _registered(command: RegisterService, envelope: Mapping[str, Any]) -> ServiceRegistered:
    return ServiceRegistered(
        service_name=command.service_name,
        host=command.host,
        port=command.port,
        health_check_url=command.health_check_url,
        metadata=command.metadata,
        status=command.status.value,
        **envelope,
    )


def _instance(event: ServiceRegistered) -> ServiceInstance:
    return ServiceInstance(
        id=event.aggregate_id,
        name=event.service_name,
        host=event.host,
        port=event.port,
        health_check_url=event.health_check_url,
        metadata=event.metadata,
        status=status_named(event.status),
    )
