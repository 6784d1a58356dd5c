"""Where the newest bytes of a log begin, by the files of its segments."""

from pathlib import Path

import pytest

from spanfold.embedded.segments import offset_of_newest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three segments of 100 bytes, and a newest one of 50."""
    for offset, size in ((0, 100), (40, 100), (75, 100), (120, 50)):
        (tmp_path / f"{offset:020}.log").write_bytes(b"x" * size)
        (tmp_path / f"{offset:020}.index").write_bytes(b"x" * 1000)
    return tmp_path


@pytest.mark.parametrize(
    ("size", "offset"),
    [(0, 120), (49, 120), (50, 120), (149, 120), (150, 75), (250, 40), (349, 40), (350, None), (9999, None)],
)
def test_whole_segments_go_and_the_newest_one_stays(log: Path, size: int, offset: int | None) -> None:
    assert offset_of_newest(log, size) == offset


def test_a_log_that_is_not_here_has_nothing_to_cut(tmp_path: Path) -> None:
    assert offset_of_newest(tmp_path / "spanfold.traces-0", 0) is None
