"""A header whose name is not UTF-8, which Kafka takes: its record is malformed, and those beside it are folded."""

import asyncio
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.schemas.codec import Codec
from spanfold.stream_processors.rebuild.rebuild import verify
from tests.support.generations import at_work
from tests.support.stories import stories
from tests.support.workers import Start, folded_to_the_end

Headers = list[tuple[str, bytes | None]]


class RawName(str):
    """A header's name that is these bytes on the wire."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"caf\xe9"


async def produce(settings: Settings, partition: int, records: list[tuple[bytes, bytes, Headers]], codec: int) -> None:
    """All in one record batch, which aiokafka's builder in Python makes: compiled ones take real text only."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1_000_000)
        for key, value, headers in records:
            assert batch.append(timestamp=None, key=key, value=value, headers=headers)
        batch.close()
        topic = TRACES.on_broker(settings.topic_prefix)
        await (await producer.send_batch(batch, topic, partition=partition))


@pytest.mark.parametrize("codec", [0, 1, 3], ids=["plain", "gzip", "lz4"])
def test_a_headers_name_that_is_not_utf_8_makes_its_record_malformed_and_stops_nobody(
    stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start, codec: int
) -> None:
    avro = Codec()
    records: list[tuple[bytes, bytes, Headers]] = [
        (key_of(event), avro.encode(event.event_type, event.as_fields()), [*headers_of(event)]) for event in stories(30)
    ]
    home = int(partitions_of([records[0][0]], stack_settings.partitions)[0])
    here = [each for each in records if partitions_of([each[0]], stack_settings.partitions)[0] == home]
    odd: Headers = [*here[0][2], (RawName("name"), b"\xffvalue")]
    asyncio.run(produce(stack_settings, home, [here[0], (here[0][0], b"bytes", odd), *here[1:]], codec))
    asyncio.run(produce(stack_settings, home, [(here[0][0], b"alone", odd)], codec))

    worker = start()
    folded_to_the_end(ledger, worker)
    verdicts = ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1 ORDER BY 1").fetchall()
    assert verdicts == [("accepted", len(here)), ("malformed", 2)], worker.output()
    kept = ledger.execute("SELECT kafka_offset, detail, key, payload, headers FROM spanfold_core.rejected ORDER BY 1")
    for offset, detail, key, payload, headers in kept:
        assert detail == "a header's name is not UTF-8"
        assert (key, payload) == (here[0][0], b"bytes" if offset == 1 else b"alone")
        assert headers[:-1] == [[name, (value or b"").decode()] for name, value in here[0][2]]
        assert headers[-1] == [{"hex": b"caf\xe9".hex()}, {"hex": b"\xffvalue".hex()}]
    assert worker.stop() == 0
    with at_work(stack_settings) as context:
        assert all(each.equal for each in verify(context, 1).parity)
