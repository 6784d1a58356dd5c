"""What every ConfigurationService does. A subclass gives the fixture `configuration`, in which `notification.enabled` is "true",
`notification.empty` is not set or empty, and `notification.url` is "http://hooks/7".
"""

from spanfold.application.ports import ConfigurationService


class ConfigurationServiceContract:
    async def test_a_value_is_what_was_set(self, configuration: ConfigurationService) -> None:
        assert await configuration.get("notification.enabled") == "true"
        assert await configuration.get("notification.url") == "http://hooks/7"

    async def test_what_is_not_set_is_none(self, configuration: ConfigurationService) -> None:
        assert await configuration.get("notification.empty") is None
        assert await configuration.get("notification.unheard_of") is None
