"""A service, as its owners speak of it; the instances of it that run are in application.aggregates.services."""

from dataclasses import dataclass, replace
from enum import StrEnum

from spanfold.application.domain.ids import ServiceId
from spanfold.language.errors import InvalidInput


class Environment(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class Health(StrEnum):
    """Of an instance, and of a service as a whole."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


def health_named(name: str) -> Health | str:
    """The health of this name; the name itself where a later version of spanfold knows more than this one."""
    return Health(name) if name in list(Health) else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service of one version in one environment. InvalidInput when name or version is empty."""

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
        """The same service, as healthy as it is now."""
        return replace(self, health=health)

    def upgraded(self, version: str) -> "Service":
        """The same service in another version, which has yet to start."""
        return replace(self, version=version, health=Health.STARTING)
