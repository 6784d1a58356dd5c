"""`spanfold tail`, for real: what is in the log is shown as it comes, readable or not."""

import json
import signal
import subprocess
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from spanfold.language.events import TraceCompleted
from spanfold.language.records import headers_of, key_of
from spanfold.schemas.codec import Codec
from tests.cli.shell import Shell

pytestmark = pytest.mark.timeout(180)

Foreground = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def topic(running: Shell, own_servers: dict[str, str]) -> str:
    """An empty topic of this test's own, by its name on the broker."""
    assert running("migrate", **own_servers).returncode == 0
    return f"{own_servers['SPANFOLD_TOPIC_PREFIX']}spanfold.traces"


def publish(shell: Shell, servers: dict[str, str], *traces: str) -> None:
    events = [
        {"event_type": each, "aggregate_id": trace, "event_data": data}
        for trace in traces
        for each, data in (
            ("TraceCreated", {"service_name": "shop", "operation_name": "GET /cart", "start_time": 1_800_000_000_000_000}),
            ("TraceCompleted", {"end_time": 1_800_000_000_500_000, "tags": {"cart": {"items": [1, None]}}}),
        )
    ]  # fmt: skip
    lines = "\n".join(map(json.dumps, events))
    done = shell("publish", "-", stdin=lines, **servers)
    assert done.returncode == 0, done.stderr


def test_what_is_in_the_log_is_shown_readably(running: Shell, own_servers: dict[str, str], topic: str) -> None:
    publish(running, own_servers, "t1")
    done = running("tail", "traces", "--from", "beginning", "--limit", "2", **own_servers)
    assert (done.returncode, done.stderr) == (0, "")
    created, completed = done.stdout.splitlines()
    words = created.split()
    assert words[0].endswith("Z")
    assert words[1].endswith(":0")
    assert words[2:4] == ["t1", "TraceCreated"]
    assert 'operation_name="GET /cart"' in created
    assert "start_time=2027-01-15T08:00:00.000000Z" in words
    assert completed.split()[2:4] == ["t1", "TraceCompleted"]
    assert 'tags={"cart":{"items":[1,null]}}' in completed


def test_programs_get_an_object_a_line(running: Shell, own_servers: dict[str, str], topic: str) -> None:
    publish(running, own_servers, "t1", "t2")
    words = ("tail", topic, "--from", "beginning", "--type", "TraceCompleted", "--limit", "2", "--json")
    done = running(*words, **own_servers)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["key"] for row in rows} == {"t1", "t2"}
    for row in rows:
        assert row["event_type"] == row["headers"]["event_type"] == "TraceCompleted"
        assert row["fields"]["event_id"] == row["headers"]["event_id"]
        assert row["fields"]["end_time"] == "2027-01-15T08:00:00.500000Z"
        assert row["fields"]["tags"] == {"cart": {"items": [1, None]}}


def test_what_cannot_be_decoded_is_shown_with_the_reason_and_its_bytes(
    running: Shell, own_servers: dict[str, str], topic: str
) -> None:
    good = TraceCompleted(aggregate_id="t1", occurred_at=1, source="test", end_time=1)
    whole = Codec().encode(good.event_type, good.as_fields())
    producer = Producer({"bootstrap.servers": own_servers["SPANFOLD_KAFKA_BOOTSTRAP"]})
    producer.produce(topic, b"\0\0\0\0\7" + b"x" * 1000, key_of(good), 2, headers=[*headers_of(good)])
    producer.produce(topic, None, None, 2)
    producer.produce(topic, whole[:-1], b"\xff\n", 2, headers=[("\n", None)])
    assert producer.flush(30) == 0
    words = ("tail", "spanfold.traces", "--from", "0", "--partition", "2", "--limit", "3")
    lines = running(*words, **own_servers).stdout.splitlines()
    assert len(lines) == 3
    assert "2:0 t1 TraceCompleted ! unknown_schema: schema id 7 is unknown here" in lines[0]
    assert lines[0].endswith("1005 bytes: 00 00 00 00 07" + " 78" * 59)
    assert "2:1 null ? ! unreadable: the value is null; 0 bytes: " in lines[1]
    assert "! unreadable: not a TraceCompleted" in lines[2]
    first, _, last = (json.loads(line) for line in running(*words, "--json", **own_servers).stdout.splitlines())
    why = first["undecoded"]
    assert (why["reason"], why["bytes"], why["value"][:14]) == ("unknown_schema", 1005, "00 00 00 00 07")
    assert (last["key"], last["headers"]) == (r"b'\xff\n'", {"\n": None})


def test_a_document_that_is_not_json_is_shown_as_its_text(
    running: Shell, own_servers: dict[str, str], topic: str
) -> None:
    event = TraceCompleted(aggregate_id="t1", occurred_at=1, source="test", end_time=1, tags={"aa": 1})
    value = Codec().encode(event.event_type, event.as_fields()).replace(b'{"aa":1}', b'{"aa":1 ')
    producer = Producer({"bootstrap.servers": own_servers["SPANFOLD_KAFKA_BOOTSTRAP"]})
    producer.produce(topic, value, key_of(event), 2, headers=[*headers_of(event)])
    assert producer.flush(30) == 0
    words = ("tail", "traces", "--from", "0", "--partition", "2", "--limit", "1", "--json")
    row = json.loads(running(*words, **own_servers).stdout)
    assert (row["fields"]["tags"], row["undecoded"]) == ('{"aa":1 ', None)


def test_from_the_end_only_what_comes_is_shown_until_ctrl_c(
    running: Shell, own_servers: dict[str, str], topic: str, foreground: Foreground
) -> None:
    publish(running, own_servers, "before")
    tail = foreground(running, "tail", "traces", **own_servers)
    assert tail.stdout
    shown = ""
    for number in range(30):  # it begins where the log ends once it has connected, which it says nobody
        publish(running, own_servers, f"later{number}")
        if select(tail):
            shown = tail.stdout.readline()
            break
    assert " later" in shown
    tail.send_signal(signal.SIGINT)
    rest, errors = tail.communicate(timeout=30)
    assert (tail.returncode, errors) == (0, "")
    assert " before " not in shown + rest


def select(process: "subprocess.Popen[str]") -> bool:
    """Whether it has written something within half a second."""
    import selectors

    with selectors.DefaultSelector() as selector:
        assert process.stdout
        selector.register(process.stdout, selectors.EVENT_READ)
        return bool(selector.select(0.5))


def test_a_reader_that_has_seen_enough_ends_it(running: Shell, own_servers: dict[str, str], topic: str) -> None:
    publish(running, own_servers, *(f"t{number}" for number in range(50)))
    tail = subprocess.Popen(
        running.command("tail", "traces", "--from", "beginning"), env=running.environment(**own_servers),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tail.stdout
    assert tail.stderr
    assert tail.stdout.readline()
    tail.stdout.close()
    publish(running, own_servers, "t51")
    assert tail.wait(60) == 0
    assert tail.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("traces", "--from", "yesterday"), 2, "--from yesterday: expected beginning, end or an offset"),
        (("nothing",), 2, "unknown topic 'nothing'; expected one of logs, metrics, services, traces"),
        (("traces", "--partition", "4"), 2, "has no partition 4, only 0 to 3"),
    ],
)
def test_wrong_usage_is_named(
    running: Shell, own_servers: dict[str, str], topic: str, words: tuple[str, ...], code: int, says: str
) -> None:
    done = running("tail", *words, **own_servers)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_topic_or_a_kafka_that_is_not_there_is_named(running: Shell, own_servers: dict[str, str]) -> None:
    missing = running("tail", "traces", **own_servers)
    assert missing.returncode == 3
    assert "run `spanfold migrate`" in missing.stderr
    away = running("tail", "traces", SPANFOLD_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert away.returncode == 4
    assert "Kafka at 127.0.0.1:1 did not answer" in away.stderr
