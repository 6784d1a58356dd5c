"""Settings, read from the environment (prefix `SPANFOLD_`); every process takes them from here.

Both Kafka clients (librdkafka and aiokafka) get their connection from the same fields. An empty text is the same as none.
"""

import json
import os
import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from spanfold.language.snapshot_policy import PolicyChanges, PolicyField, SnapshotPolicy, checked


def default_home() -> Path:
    """`$XDG_DATA_HOME/spanfold`, else `~/.local/share/spanfold`; for a user without a home a temporary folder of the user's."""
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "spanfold"
    try:
        return Path.home() / ".local" / "share" / "spanfold"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"spanfold-{os.getuid()}"


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError as error:
        raise ValueError('expected JSON such as {"spanfold.traces": 30}') from error


DaysByName = Annotated[dict[str, Annotated[int, Field(ge=0, le=36_500)]], NoDecode, BeforeValidator(_from_json)]
"""Days by name, in the environment as JSON; 0 lets go as soon as nothing needs it."""

SizeByName = Annotated[dict[str, Annotated[int, Field(ge=0)]], NoDecode, BeforeValidator(_from_json)]
"""Bytes by name, in the environment as JSON."""


def _policy(name: PolicyField) -> AfterValidator:
    """Of a setting that is this field of the snapshot policy."""
    return AfterValidator(partial(checked, name))


def _checked_changes(changes: PolicyChanges) -> PolicyChanges:
    return {name: checked(name, value) for name, value in changes.items()}


SecurityProtocol = Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)]
SaslMechanism = Annotated[Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(_upper)]


class Settings(BaseSettings):
    """What a process needs to know. Each field is also an environment variable: `kafka_bootstrap` is
    `SPANFOLD_KAFKA_BOOTSTRAP`.
    """

    model_config = SettingsConfigDict(env_prefix="SPANFOLD_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="folder of the embedded stack's data, logs and state")
    kafka_bootstrap: str | None = Field(default=None, description="host:port[,host:port…] of an existing Kafka")
    kafka_security_protocol: SecurityProtocol = Field(default="PLAINTEXT", description="how clients connect to Kafka")
    kafka_sasl_mechanism: SaslMechanism = Field(
        default="", description="SASL mechanism; required with SASL_PLAINTEXT and SASL_SSL"
    )
    kafka_sasl_username: str = Field(default="", description="SASL user name")
    kafka_sasl_password: SecretStr = Field(default=SecretStr(""), description="SASL password")
    kafka_ssl_cafile: str = Field(
        default="", description="PEM file of the certificate authority that signs the brokers; default: the system's"
    )
    kafka_ssl_certfile: str = Field(default="", description="PEM file of this client's certificate and its chain")
    kafka_ssl_keyfile: str = Field(default="", description="PEM file of this client's private key")
    kafka_ssl_key_password: SecretStr = Field(default=SecretStr(""), description="password of the private key")
    kafka_ssl_check_hostname: bool = Field(
        default=True, description="whether a broker's certificate must match its host name"
    )
    postgres_dsn: str | None = Field(default=None, description="postgresql://… of an existing Postgres")
    topic_prefix: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$", description="prefix of every topic's name")
    partitions: int = Field(
        default=4, ge=1, le=1000, description="partitions of each topic; can't be changed once the topics exist"
    )
    replication_factor: int = Field(default=1, ge=1, description="replicas of each topic")
    min_insync_replicas: int = Field(default=1, ge=1, description="min.insync.replicas of each topic")
    group: str = Field(default="spanfold", description="prefix of the workers' consumer groups")
    session_timeout_s: float = Field(
        default=10.0, ge=6, description="seconds before the partitions of a killed worker go to another one"
    )
    batch_records: int = Field(
        default=20_000, ge=1, description="maximum records per poll, and so per Postgres transaction"
    )
    fetch_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="bytes per fetch and partition")
    max_value_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        le=256 * 1024 * 1024,
        description="larger values are parked as too_large, with size, hash and first KiB; a worker takes memory accordingly",
    )
    parked_share_limit: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="a topic is suspended if a larger share of its recent records can't be folded",
    )
    merge_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds that a statement of your own projection may take before it is suspended",
    )
    worker_host: str = Field(default="127.0.0.1", description="address where a worker serves /metrics and /healthz")
    worker_port: int = Field(default=0, ge=0, le=65535, description="port where a worker does; 0 picks a free one")
    otlp_host: str = Field(default="127.0.0.1", description="address where OTLP/HTTP is served")
    otlp_port: int = Field(
        default=4318, ge=0, le=65535, description="port where OTLP/HTTP is served; 0 picks a free one"
    )
    api_host: str = Field(default="127.0.0.1", description="address where commands and queries are served over HTTP")
    api_port: int = Field(default=4380, ge=0, le=65535, description="port where they are served; 0 picks a free one")
    watch_interval_s: float = Field(default=5.0, gt=0, description="seconds between two measurements of a worker's lag")
    stalled_after_s: float = Field(
        default=60.0, gt=0, description="seconds without progress, while behind the log, before /healthz fails"
    )
    unowned_after_s: float = Field(default=300.0, gt=0, description="seconds without partitions before /healthz fails")
    log_retention_days: DaysByName = Field(
        default={},
        description="by topic: `spanfold prune` deletes Kafka records older than this, once nothing needs them",
    )
    log_retention_bytes: SizeByName = Field(
        default={},
        description="by topic: `spanfold prune` deletes older Kafka records beyond so many bytes in a partition; "
        "of the embedded Kafka only",
    )
    journal_retention_days: DaysByName = Field(
        default={}, description="by topic: `spanfold prune` drops days of the journal older than this"
    )
    table_retention_days: DaysByName = Field(
        default={}, description="by table (spans, metric_points, …): `spanfold prune` deletes rows older than this"
    )
    snapshot_quiet_s: Annotated[float, _policy("quiet_s")] = Field(
        default=60.0, description="seconds between the last event of a closed aggregate and its snapshot"
    )
    snapshot_every_records: Annotated[int, _policy("every_records")] = Field(
        default=1_000, description="records of an aggregate between two snapshots"
    )
    snapshot_at_least_every_s: Annotated[float, _policy("at_least_every_s")] = Field(
        default=3_600.0, description="maximum seconds before a record is in a snapshot"
    )
    snapshot_policies: dict[str, Annotated[PolicyChanges, AfterValidator(_checked_changes)]] = Field(
        default_factory=dict,
        description="""exceptions by aggregate, as JSON: {"trace": {"quiet_s": 10, "every_records": 500}}""",
    )
    log_level: str = Field(default="INFO", description="least severe level that is logged: DEBUG, INFO, WARNING, ERROR")

    @property
    def snapshot_policy(self) -> SnapshotPolicy:
        """When snapshots are due of aggregates that have no policy of their own."""
        return SnapshotPolicy(
            quiet_s=self.snapshot_quiet_s,
            every_records=self.snapshot_every_records,
            at_least_every_s=self.snapshot_at_least_every_s,
        )


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
