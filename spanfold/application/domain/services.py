"""A service as its owners see it. Its running instances are in application.aggregates.services."""

from dataclasses import dataclass, replace
from enum import StrEnum

from spanfold.application.domain.ids import ServiceId
from spanfold.language.errors import InvalidInput


class Environment(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class InstanceStatus(StrEnum):
    """Where a running instance is in its life."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


class Health(StrEnum):
    """What health checks say: unknown until the first one has an answer."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


def status_named(name: str) -> InstanceStatus | str:
    """The status with this name, or the name itself if this version of spanfold does not know it."""
    return InstanceStatus(name) if name in list(InstanceStatus) else name


def health_of(status: InstanceStatus | str) -> Health:
    """The health of an instance with this status. One that is stopping takes no more calls: it is unhealthy."""
    match status:
        case InstanceStatus.HEALTHY:
            return Health.HEALTHY
        case InstanceStatus.UNHEALTHY | InstanceStatus.STOPPING:
            return Health.UNHEALTHY
        case _:
            return Health.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A version of a service in an environment. InvalidInput when name or version is empty."""

    id: ServiceId
    name: str
    version: str
    environment: Environment
    health: Health = Health.UNKNOWN

    def __post_init__(self) -> None:
        for field in ("name", "version"):
            if not getattr(self, field):
                raise InvalidInput(f"service {self.id}: {field} is empty")

    @property
    def is_healthy(self) -> bool:
        return self.health is Health.HEALTHY

    def with_health(self, health: Health) -> "Service":
        """The same service with this health."""
        return replace(self, health=health)

    def upgraded(self, version: str) -> "Service":
        """The same service in another version, whose health is unknown."""
        return replace(self, version=version, health=Health.UNKNOWN)
