"""What a library logs a hundred times a second is written once in ten seconds, with the number that was held back."""

import io
import logging
import uuid

import pytest

from spanfold.language.throttled_log import (
    EVERY_S,
    OUTAGE_S,
    Throttle,
    ThrottledLines,
    UnfailingStream,
    throttle_loggers,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _line(words: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("library.net", logging.WARNING, __file__, 1, words, values, None)


def test_lines_with_the_same_words_are_held_back_and_counted() -> None:
    clock = Clock()
    lines = ThrottledLines(clock)
    assert lines.filter(_line("Unable to connect to %s", "a:1"))
    assert not any(lines.filter(_line("Unable to connect to %s", f"b:{number}")) for number in range(99))
    assert lines.filter(_line("Something else"))
    clock.now += EVERY_S
    again = _line("Unable to connect to %s", "c:3")
    assert lines.filter(again)
    assert again.getMessage() == "Unable to connect to c:3 (99 like it were held back)"
    clock.now += EVERY_S
    quiet = _line("Unable to connect to %s", "d:4")
    assert lines.filter(quiet)
    assert quiet.getMessage() == "Unable to connect to d:4"


def test_each_logger_of_the_library_is_throttled_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    library = f"library{uuid.uuid4().hex[:8]}"
    own, other = logging.getLogger(f"{library}.client"), logging.getLogger(f"{library}s")
    throttle_loggers(library)
    for number in range(100):
        own.warning("away: %s", number)
        other.warning("away: %s", number)
    said = [record.name for record in caplog.records]
    assert (said.count(own.name), said.count(other.name)) == (1, 100)


def test_what_goes_on_for_hours_is_written_ever_more_rarely() -> None:
    clock = Clock()
    throttle = Throttle(clock, OUTAGE_S)
    passed = []
    for second in range(3600):
        clock.now = 1000.0 + second
        if throttle.passes("away") is not None:
            passed.append(second)
    assert passed == [0, 10, 30, 70, 150, 310, *range(610, 3600, 300)]
    clock.now += 2 * OUTAGE_S
    assert throttle.passes("away")
    clock.now += EVERY_S
    assert throttle.passes("away") == 0, "alone, it is no storm"


def test_a_line_that_cannot_be_written_is_lost_and_raises_nothing() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        text = io.TextIOWrapper(full, write_through=True)
        with pytest.raises(OSError, match="No space left"):
            text.write("a line\n")
        stream = UnfailingStream(text)
        stream.write("a line\n")
        stream.flush()
