"""Configuration from the environment."""

import os
from collections.abc import Mapping


class EnvironmentConfiguration:
    """A ConfigurationService: `notification.enabled` is SPANFOLD_NOTIFICATION_ENABLED. An empty value counts as none."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    async def get(self, key: str) -> str | None:
        return self._environment.get(variable_of(key)) or None


def variable_of(key: str) -> str:
    """The environment variable of a key: SPANFOLD_ and the key in capitals, with _ for . and -."""
    return "SPANFOLD_" + key.upper().replace(".", "_").replace("-", "_")
