"""What the table `services` must show, and which records of its topic must be accepted, from a plain reading of the log."""

from collections.abc import Iterable
from typing import Any, Final

import psycopg

from spanfold.language.events import DomainEvent, ServiceDeregistered, ServiceHealthChanged, ServiceRegistered
from spanfold.language.topics import SERVICES
from tests.faults import states
from tests.faults.reference import Log

Row = tuple[Any, ...]


def compare(ledger: psycopg.Connection[Any], log: Log, partitions: int) -> list[str]:
    """What differs, in words."""
    histories = {
        instance: [event for event, _ in recorded]
        for (topic, instance), recorded in states.histories(log, partitions).items()
        if topic == SERVICES.name
    }
    rows = {instance: row for instance, told in histories.items() if (row := _row(told)) is not None}
    records = [each for each in log.records if each.topic.name == SERVICES.name]
    accepted = {(each.partition, each.offset): version for each, version in states.accepted(records, partitions)}
    return [
        *states.differences("services", rows, {row[0]: row[1:] for row in ledger.execute(SHOWN)}),
        *states.differences("accepted", accepted, {row[:2]: row[2] for row in ledger.execute(ACCEPTED)}),
    ]


def _row(told: Iterable[DomainEvent]) -> Row | None:
    """What holds after these events of one instance; None when it is not registered."""
    row: Row | None = None
    for event in told:
        match event:
            case ServiceRegistered():
                said = (event.service_name, event.host, event.port, event.health_check_url, dict(event.metadata))
                row = (*said, event.status, "", event.occurred_at, event.occurred_at)
            case ServiceHealthChanged() if row is not None:
                row = (*row[:5], event.status, event.reason, row[7], event.occurred_at)
            case ServiceDeregistered():
                row = None
    return row


SHOWN: Final = """
SELECT instance_id, service_name, host, port, health_check_url, metadata, status, reason,
       (extract(epoch FROM registered_at) * 1000000)::bigint, (extract(epoch FROM status_at) * 1000000)::bigint
  FROM spanfold.services
"""

ACCEPTED: Final = """
SELECT partition, kafka_offset, version FROM spanfold.journal WHERE topic = 'spanfold.services'
"""
