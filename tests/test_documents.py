"""JSON documents in events: one canonical form, and what can't be stored is refused by the name of its place."""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.documents import MAX_DEPTH, Shape, canonical, canonical_bytes, parsed, parsed_or_text
from spanfold.language.errors import InvalidInput
from spanfold.language.events import series_id

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)

# the first run of all builds Hypothesis' table of characters
relaxed = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def nested(levels: int) -> Any:
    """A list in a list, and so on: so many."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


# The canonical form


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([1, 1.0, -0.0, 1e20, 1.5e-7, True], "[1,1.0,-0.0,1e+20,1.5e-7,true]"),
        ({"b": 1, "a": {"d": (), "c": None}}, '{"a":{"c":null,"d":[]},"b":1}'),
        ({"\U0001f600": 1, "\uffff": 2, "é": 3, "z": 4}, '{"z":4,"é":3,"\uffff":2,"\U0001f600":1}'),
        ('"\\/\n\x7f\u2028é', '"\\"\\\\/\\n\x7f\u2028é"'),
        ([math.nan, math.inf, -math.inf], '["NaN","Infinity","-Infinity"]'),
        ({"null": [math.nan, None]}, '{"null":["NaN",null]}'),
        (b"\xff\x00", '"/wA="'),
        (MappingProxyType({"a": range(2)}), '{"a":[0,1]}'),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_a_value_has_one_text(value: Any, text: str) -> None:
    assert canonical(value, "value", "it") == text
    assert canonical_bytes(text, "value") == text.encode()


@relaxed
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_however_it_is_written_it_has_the_same_canonical_form(value: Any, ascii_only: bool, indent: int | None) -> None:
    written = json.dumps(value, allow_nan=False, ensure_ascii=ascii_only, indent=indent)
    assert canonical_bytes(written, "value").decode() == canonical(value, "value", "it")


@relaxed
@given(VALUES)
def test_the_canonical_form_of_a_canonical_form_is_itself(value: Any) -> None:
    text = canonical(value, "value", "it")
    assert canonical(parsed(text), "value", "it") == text
    assert canonical_bytes(text, "value") == text.encode()
    assert parsed(text) == value


@relaxed
@given(OBJECTS, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], random: Any) -> None:
    other = shuffled(value, random)
    assert canonical(other, "object", "it") == canonical(value, "object", "it")
    assert canonical_bytes(json.dumps(other), "object") == canonical_bytes(json.dumps(value), "object")


@relaxed
@given(OBJECTS, OBJECTS, OBJECTS, st.randoms(use_true_random=False))
def test_the_id_of_a_series_does_not_depend_on_the_order_of_keys(
    resource: dict[str, Any], scope: dict[str, Any], labels: dict[str, Any], random: Any
) -> None:
    one = series_id(resource, "scope", "name", labels, "1", scope)
    assert one == series_id(
        *(shuffled(resource, random), "scope", "name", shuffled(labels, random), "1"), shuffled(scope, random)
    )


def test_the_id_of_a_series_depends_on_all_that_makes_it() -> None:
    parts: dict[str, Any] = {
        "resource": {"a": 1}, "scope_name": "s", "name": "n", "labels": {"l": 1}, "scope_version": "1", "scope_attributes": {},
    }  # fmt: skip
    changes: list[dict[str, Any]] = [
        {}, {"resource": {"a": 2}}, {"resource": {"a": 1.0}}, {"resource": {"a": "1"}}, {"scope_name": "t"}, {"name": "m"},
        {"labels": {"l": 2}}, {"labels": {"l": nested(MAX_DEPTH - 1)}}, {"scope_version": "2"}, {"scope_attributes": {"a": 1}},
    ]  # fmt: skip
    assert len({series_id(**parts | change) for change in changes}) == len(changes)
    with pytest.raises(InvalidInput, match="labels: more than 64 levels deep"):
        series_id(**parts | {"labels": {"l": nested(MAX_DEPTH)}})


def shuffled(value: Any, random: Any) -> Any:
    """The same with the keys of all objects in another order."""
    if isinstance(value, Mapping):
        pairs = [(key, shuffled(item, random)) for key, item in value.items()]
        random.shuffle(pairs)
        return dict(pairs)
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


# What a publisher can't write


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        ({"a": {"b": [0, 2**64]}}, "object", r"^tags.a.b\[1\] is 18446744073709551616, which is beyond 64 bits: publish it"),
        ({"a": -(2**63) - 1}, "object", r"^tags.a is -9223372036854775809, which is beyond 64 bits"),
        ({"a": ["x", {"b": "\ud800"}]}, "object", r"^tags.a\[1\].b: half of a surrogate pair can't be stored: remove it$"),
        ({"a": {"\udfff": 1}}, "object", r"^tags.a, a key: half of a surrogate pair"),
        ({"a": [{"b": {1: 2}}]}, "object", r"^tags.a\[0\].b: expected keys that are text, got 1$"),
        ({"a": {"b": object()}}, "object", r"^tags.a.b: a value of type object is none of JSON's$"),
        ({"a": {1, 2}}, "object", r"^tags.a: a value of type set is none of JSON's$"),
        ({"a": ["\0"]}, "object", r"^tags: a NUL character can't be stored: remove it$"),
        ({"a": {"b\0": 1}}, "object", r"^tags: a NUL character can't be stored: remove it$"),
        (nested(MAX_DEPTH + 1), "value", r"^tags: more than 64 levels deep$"),
        ({"a": nested(MAX_DEPTH)}, "object", r"^tags: more than 64 levels deep$"),
        (nested(3000), "value", r"^tags(\[0\]){64}: more than 64 levels deep$"),
        ([1], "object", r"^tags: expected an object, got \[1\]$"),
        ("a" * 100, "object", rf'^tags: expected an object, got "{"a" * 59}…$'),
        (None, "object", "^tags: expected an object, got null$"),
        ({}, "span_events", "^tags: expected a list, got {}$"),
        ([1], "span_events", r"^tags: \[0\]: expected an object of name, time, attributes$"),
        ([{"name": "a", "time": 1}], "span_events", r"^tags: \[0\]: expected an object of name, time, attributes$"),
        ([{"name": "a", "time": 1, "attributes": {}, "b": 1}], "span_events", r"\[0\]: expected an object of name, time, attr"),
        ([{"name": 1, "time": 1, "attributes": {}}], "span_events", r"^tags: \[0\].name: expected text$"),
        ([{"name": "a", "time": 1.0, "attributes": {}}], "span_events", r"\[0\].time: expected an integer, µs since 1970 UTC$"),
        ([{"name": "a", "time": True, "attributes": {}}], "span_events", r"\[0\].time: expected an integer"),
        ([{"name": "a", "time": 1, "attributes": []}], "span_events", r"\[0\].attributes: expected an object$"),
        ([{"trace_id": "a", "span_id": None, "attributes": {}}], "span_links", r"\[0\].span_id: expected text$"),
        ([{"trace_id": "a", "attributes": {}}], "span_links", r"\[0\]: expected an object of trace_id, span_id, attributes$"),
    ],
)  # fmt: skip
def test_what_a_publisher_can_t_write_is_refused_by_its_place(value: Any, shape: Shape, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        canonical(value, shape, "tags")


def test_the_second_entry_is_named_when_the_first_is_in_order() -> None:
    fine = {"name": "a", "time": -1, "attributes": {"x": nested(MAX_DEPTH - 3)}}
    assert parsed(canonical((fine,), "span_events", "events")) == [fine]
    with pytest.raises(InvalidInput, match=r"^events: \[1\].name: expected text$"):
        canonical((fine, fine | {"name": None}), "span_events", "events")


# What others may have written


@pytest.mark.parametrize(
    ("text", "shape", "why"),
    [
        ("", "value", "^not JSON: "),
        ("{", "value", "^not JSON: "),
        ("{} {}", "value", "^not JSON: "),
        ("NaN", "value", "^not JSON: "),
        ("[Infinity]", "value", "^not JSON: "),
        ("1e400", "value", "^not JSON: number is infinity when parsed as double"),
        ('{"a":[-1e309]}', "object", "^not JSON: number is infinity when parsed as double"),
        ("9" * 400, "value", "^not JSON: number is infinity when parsed as double"),
        (r'"\ud800"', "value", "^not JSON: "),
        (r'{"\udc00":1}', "object", "^not JSON: "),
        (r'"a\u0000b"', "value", "^a NUL character can't be stored"),
        (r'{"a":[{"\u0000":1}]}', "object", "^a NUL character can't be stored"),
        ('{"a":1,"a":1}', "object", "^the key 'a' occurs twice in an object$"),
        (r'{"a":1,"\u0061":2}', "object", "^the key 'a' occurs twice in an object$"),
        ('[[{"a":{"b":[{"c":1, "c":2}]}}]]', "value", "^the key 'c' occurs twice in an object$"),
        ('{"b":{"a":1,"a":2},"c":' + "9" * 5000 + "}", "object", "number is infinity when parsed as double"),
        ("[" * 65 + "]" * 65, "value", "^more than 64 levels deep$"),
        ('{"a":' * 65 + "1" + "}" * 65, "object", "^more than 64 levels deep$"),
        ("[" * 5000 + "]" * 5000, "value", "^not JSON: |^more than 64 levels deep$"),
        ("[]", "object", r"^expected an object, got \[\]$"),
        ("7", "span_links", "^expected a list, got 7$"),
        ('[{"name":"a","time":1,"attributes":{}},{"name":"a","time":"1","attributes":{}}]', "span_events", r"^\[1\].time: "),
        ('[{"name":"a","time":18446744073709551616,"attributes":{}}]', "span_events", r"^\[0\].time: expected an integer"),
    ],
)  # fmt: skip
def test_what_others_wrote_and_can_t_be_stored_says_why(text: str, shape: Shape, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        canonical_bytes(text, shape)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (' { "b" : 1 , "a" : [ ] } ', '{"a":[],"b":1}'),
        (r'"\u00e9\/\ud83d\ude00"', '"é/\U0001f600"'),
        ("[1.50, 1E2, 100e-2, 0.1e1, -0]", "[1.5,100.0,1.0,1.0,0]"),
        ("18446744073709551616", "1.8446744073709552e+19"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("1e-400", "0.0"),
        (r'"\\u0000"', r'"\\u0000"'),
        ("[" * 64 + "]" * 64, "[" * 64 + "]" * 64),
        ("[" + "[]," * 99 + "{}]", "[" + "[]," * 99 + "{}]"),
    ],
)
def test_what_others_wrote_is_brought_into_the_canonical_form(text: str, form: str) -> None:
    assert canonical_bytes(text, "value").decode() == form


@relaxed
@given(st.text(st.sampled_from('{}[]",:\\u0ed8 1-.eE"ab'), max_size=30) | st.text(max_size=10))
def test_any_text_is_a_document_or_says_why_not(text: str) -> None:
    try:
        form = canonical_bytes(text, "value")
    except ValueError:
        return
    assert canonical_bytes(form.decode(), "value") == form
    assert canonical(parsed(text), "value", "it").encode() == form


def test_a_reader_is_shown_the_value_or_else_the_text() -> None:
    assert parsed_or_text('{"a": [1, null]}') == {"a": [1, None]}
    for text in ("{", "NaN", "1e400", '"\\ud800"'):
        assert parsed_or_text(text) == text
