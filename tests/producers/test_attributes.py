import enum
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.events import TraceCompleted
from spanfold.producers.attributes import tag_of, tags_of, text_of
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
        (b"plain", "plain"),
        (b"\xff\x00", "ff00"),
        (None, "null"),
        ({"deep": [1, {"er": None}]}, '{"deep": [1, {"er": null}]}'),
        ([["nested"]], ['["nested"]']),
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
    tags = tags_of(attributes)
    event = TraceCompleted(aggregate_id="t", occurred_at=0, source="s", end_time=0, tags=tags)
    codec = Codec()
    assert codec.decode(codec.encode(event.event_type, event.as_fields()))[1]["tags"] == tags
    json.dumps(tags, allow_nan=False)
    assert not any("\0" in each for tag in tags.items() for part in tag for each in _texts(part))


def _texts(part: object) -> list[str]:
    parts = part if isinstance(part, list) else [part]
    return [each for each in parts if isinstance(each, str)]


def test_text_keeps_what_can_be_stored() -> None:
    assert text_of("Grüße 🙂 \u0001") == "Grüße 🙂 \u0001"
