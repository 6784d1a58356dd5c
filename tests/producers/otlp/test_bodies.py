"""Bodies are read within bounds, and what is malformed says so."""

import gzip
import itertools
import json
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanfold.http.body_limits import MAX_EXPORT_BYTES, BodyTooLarge, UnsupportedMediaType, decompressed
from spanfold.language.errors import InvalidInput
from spanfold.producers.otlp.bodies import JSON, PROTOBUF, Encoding, encoding_of, message_of
from tests.producers.otlp.door import a_span, an_export, as_message


def read(body: bytes, encoding: Encoding = JSON) -> ExportTraceServiceRequest:
    return message_of(ExportTraceServiceRequest, body, encoding, "")


def test_a_content_type_may_have_parameters_and_capitals() -> None:
    assert encoding_of("Application/JSON; charset=utf-8") is JSON
    assert encoding_of("application/x-protobuf") is PROTOBUF
    for other in ("", "text/plain", "application/grpc"):
        with pytest.raises(UnsupportedMediaType, match=r"application/x-protobuf, application/json"):
            encoding_of(other)


def test_gzip_is_undone_up_to_the_limit() -> None:
    most = bytes(MAX_EXPORT_BYTES)
    assert decompressed(gzip.compress(most), "GZIP", MAX_EXPORT_BYTES) == most
    assert decompressed(b"as it is", "identity", MAX_EXPORT_BYTES) == b"as it is"
    with pytest.raises(BodyTooLarge):
        decompressed(gzip.compress(most + b"x"), "gzip", MAX_EXPORT_BYTES)
    with pytest.raises(BodyTooLarge):
        decompressed(fifty_times(MAX_EXPORT_BYTES), "gzip", MAX_EXPORT_BYTES)


def fifty_times(size: int) -> bytes:
    """So many zero bytes fifty times over, compressed; the checksum at the end is of fewer."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    first, again = (packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + 49 * again + packer.flush()


def test_what_is_fifty_times_too_large_would_be() -> None:
    but_for_checksum_and_length = fifty_times(1000)[:-8]
    assert zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(but_for_checksum_and_length) == bytes(50_000)


@pytest.mark.parametrize(
    "body",
    [b"", b"plain", gzip.compress(b"x" * 1000)[:-3], gzip.compress(b"x") + b"y", gzip.compress(b"x")[:-8] + bytes(8)],
    ids=["empty", "plain", "cut off", "with something behind it", "of another checksum"],
)
def test_what_is_not_gzip_is_malformed(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="gzip"):
        decompressed(body, "gzip", MAX_EXPORT_BYTES)


def test_other_compressions_are_unknown() -> None:
    with pytest.raises(UnsupportedMediaType, match="'br' is not gzip"):
        decompressed(b"", "br", MAX_EXPORT_BYTES)


def test_json_and_protobuf_are_the_same_message() -> None:
    request = an_export(
        a_span(
            links=[{"traceId": "AB" * 16, "spanId": "cd" * 8, "tomorrow": {"x": 1}}],
            startTimeUnixNano=18_446_744_073_709_551_615,
            tomorrow=[1, 2],
        )
    )
    message = as_message(request)
    (span,) = message.resource_spans[0].scope_spans[0].spans
    assert span.trace_id == bytes(15) + b"\x01"
    assert span.links[0].trace_id == b"\xab" * 16
    assert span.links[0].span_id == b"\xcd" * 8
    assert span.start_time_unix_nano == 2**64 - 1
    assert read(message.SerializeToString(), PROTOBUF) == message


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"7", b"null", b"{", b'"x"', b'{"resourceSpans": 7}', b'{"resourceSpans": [null]}',
        b'{"resourceSpans": {"scopeSpans": []}}', b"[" * 2000, b'{"resourceSpans":' * 300, b"\xff",
        json.dumps(an_export(a_span(traceId="not hexadecimal"))).encode(),
        json.dumps(an_export(a_span(traceId="abc"))).encode(),
        json.dumps(an_export(a_span(startTimeUnixNano="-1"))).encode(),
        json.dumps(an_export(a_span(kind=[]))).encode(),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_malformed_json_says_so(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(body)


def test_malformed_protobuf_says_so() -> None:
    with pytest.raises(InvalidInput, match="not a ExportTraceServiceRequest in protobuf"):
        read(b"\x0a\xff\xff", PROTOBUF)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resourceSpans", "scopeSpans", "spans", "links", "traceId", "name", "attributes", "kind"]),
            inner,
        )
    ),
    max_leaves=12,
)


# the first run of all builds Hypothesis' table of characters
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(ANYTHING)
def test_any_json_is_read_or_refused(document: Any) -> None:
    with suppress(InvalidInput):
        read(json.dumps(document).encode())


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON]))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: Encoding) -> None:
    with suppress(InvalidInput):
        read(body, encoding)
