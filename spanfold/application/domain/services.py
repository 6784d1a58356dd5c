"""A service as its owners see it. Its running instances are in application.aggregates.services."""

from dataclasses import dataclass, replace
from enum import StrEnum

from spanfold.application.domain.ids import ServiceId
from spanfold.language.errors import InvalidInput


class Environment(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class Health(StrEnum):
    """Health of an instance, or of a service as a whole."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


def health_named(name: str) -> Health | str:
    """The health with this name, or the name itself if this version of spanfold does not know it."""
    return Health(name) if name in list(Health) else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A version of a service in an environment. InvalidInput when name or version is empty."""

    id: ServiceId
    name: str
    version: str
    environment: Environment
    health: Health = Health.STARTING

    def __post_init__(self) -> None:
        for field in ("name", "version"):
            if not getattr(self, field):
                raise InvalidInput(f"service {self.id}: {field} is empty")

    def with_health(self, health: Health) -> "Service":
        """The same service with this health."""
        return replace(self, health=health)

    def upgraded(self, version: str) -> "Service":
        """The same service in another version, which is starting."""
        return replace(self, version=version, health=Health.STARTING)
