import datetime
import enum
import json
import math
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.documents import canonical, canonical_bytes, parsed
from spanfold.language.events import TraceCompleted, series_id
from spanfold.producers.attributes import LONGEST_TEXT, NESTED, body_of, tag_of, tags_of, text_of
from spanfold.schemas.codec import Codec


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("attribute", "tag"),
    [
        ("text", "text"),
        (True, True),
        (Colour.RED, 1),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (0.25, 0.25),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (("a", 1, True, 2**70), ["a", 1, True, "1180591620717411303424"]),
        (b"plain", "cGxhaW4="),
        (bytearray(b"\xff\x00"), "/wA="),
        (memoryview(b"\xff\x00"), "/wA="),
        (None, None),
        ({"deep": [1, {"er": None}]}, {"deep": [1, {"er": None}]}),
        (MappingProxyType({"a": (2**63, math.inf)}), {"a": ["9223372036854775808", "Infinity"]}),
        ([["nested"], (), {}], [["nested"], [], {}]),
        ([{"k\0": "a\0"}, "\ud800"], [{"k\ufffd": "a\ufffd"}, "\ufffd"]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2026, 11, 18), "2026-11-18"),
        ({3}, "{3}"),
        pytest.param(10**5000, "<int>", id="more digits than Python writes"),
        ("a\0b\ud800c", "a\ufffdb\ufffdc"),
    ],
)
def test_an_attribute_becomes_a_tag(attribute: object, tag: object) -> None:
    made = tag_of(attribute)
    assert made == tag
    assert type(made) is type(tag)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


# the first run of all builds Hypothesis' table of characters
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.text(st.characters()), ANYTHING, max_size=4))
def test_whatever_an_application_sets_can_be_encoded(attributes: dict[str, object]) -> None:
    codec, tags = Codec(), tags_of(attributes)
    event = TraceCompleted(aggregate_id="t", occurred_at=0, source="s", end_time=0, tags=tags)
    text = codec.decode(codec.encode(event.event_type, event.as_fields()))[1]["tags"]
    assert canonical_bytes(text, "object").decode() == text
    assert parsed(text) == tags


def deep(levels: int, bottom: Any = None) -> Any:
    """Lists and mappings by turns around the bottom: so many."""
    value = bottom
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_what_is_nested_too_deep_becomes_json_text() -> None:
    fits = deep(NESTED, "bottom")
    assert tag_of(fits) == fits
    tag: Any = tag_of({"a": [deep(NESTED - 1, {"b": "\0", "c": (None, b"x")})]})
    for _ in range(NESTED):
        tag = tag["a"] if isinstance(tag, dict) else tag[0]
    assert json.loads(tag) == deep(1, {"b": "\0", "c": [None, "b'x'"]})


@pytest.mark.parametrize("levels", [NESTED, NESTED + 1, 200, 100_000])
def test_however_deep_it_fits_wherever_an_event_has_attributes(levels: int) -> None:
    tags = tags_of({"k": deep(levels)})
    canonical(tags, "object", "tags")
    canonical([{"name": "n", "time": 1, "attributes": tags}], "span_events", "events")
    series_id(tags, "", "name", tags, "", tags)


def test_what_contains_itself_ends() -> None:
    tree: dict[str, Any] = {"name": "parent"}
    tree["children"] = [{"parent": tree, "n": 1}, {"parent": tree, "n": 2}]
    tag: Any = tag_of(tree)
    assert [each["n"] for each in tag["children"]] == [1, 2]
    assert tag["children"][0]["parent"].startswith("{'name': 'parent'")
    same = ["a"]
    assert tag_of([same, same]) == [["a"], ["a"]]


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_what_has_no_text_is_its_type() -> None:
    assert tags_of({"a": Mute(), Mute(): [Mute()]}) == {"a": "<Mute>", "<Mute>": ["<Mute>"]}  # type: ignore[dict-item]


def test_a_body_is_any_value_and_long_ones_lose_their_middle() -> None:
    assert body_of({"a": [1, None]}) == {"a": [1, None]}
    assert body_of(None) is None
    assert body_of(7) == 7
    for long in ("x" * 100_000, ["x" * 100_000]):
        body = body_of(long)
        assert isinstance(body, str)
        assert len(body) < LONGEST_TEXT + 100
        assert "characters are left out" in body


def test_text_keeps_what_can_be_stored() -> None:
    assert text_of("Grüße 🙂 \u0001") == "Grüße 🙂 \u0001"
