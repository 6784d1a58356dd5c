"""How much room is left, and from when on it is too little."""

from pathlib import Path

import pytest

from spanfold.embedded.disks import GIB, Disk, Room, stack_disks


@pytest.mark.parametrize(
    ("free_gib", "total_gib", "room"),
    [
        (100, 500, Room.ENOUGH),
        (5, 500, Room.ENOUGH),
        (4.9, 500, Room.LITTLE),
        (1, 500, Room.LITTLE),
        (0.9, 500, Room.TOO_LITTLE),
        (0, 500, Room.TOO_LITTLE),
        (0.6, 5, Room.ENOUGH),
        (0.4, 5, Room.LITTLE),
        (0.09, 5, Room.TOO_LITTLE),
    ],
)
def test_room_is_judged_by_gigabytes_and_on_a_small_disk_by_its_share(
    free_gib: float, total_gib: float, room: Room
) -> None:
    disk = Disk(Path("/srv/spanfold"), int(free_gib * GIB), int(total_gib * GIB))
    assert disk.room is room
    assert (disk.warning is None) == (room is Room.ENOUGH)


def test_a_warning_says_how_much_is_left_and_what_to_do() -> None:
    disk = Disk(Path("/srv/spanfold"), 3 * GIB, 500 * GIB)
    assert disk.warning == (
        "only 3.0 GiB free for /srv/spanfold: when that disk is full, Kafka and Postgres will stop until there is room. "
        "Free some, or delete old data with `spanfold prune`"
    )


def test_a_disk_that_both_share_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    assert [disk.folder for disk in stack_disks(tmp_path)] == [tmp_path]
