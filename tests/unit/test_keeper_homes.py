"""Which shards of a blob go home together."""

import pytest

from ops.keeper.homes import homebound
from placement.ids import DriveId

A, B, C, D, E = [DriveId(bytes([n]) * 16) for n in range(5)]
HOMES = {0: A, 1: B, 2: C}


@pytest.mark.parametrize(
    "held",
    [
        {0: [A], 1: [B], 2: [C]},
        {0: [B], 1: [C], 2: [D]},
        {0: [B], 1: [A], 2: [C]},
        {0: [B, D], 1: [A, E], 2: [C]},
        {0: [A, B], 1: [C], 2: [A]},
        {0: [A], 1: [A], 2: [A]},
    ],
)
def test_with_every_home_in_use_all_go_home(held: dict[int, list[DriveId]]) -> None:
    assert homebound(held, HOMES) == [0, 1, 2]


@pytest.mark.parametrize(
    ("held", "able"),
    [
        ({0: [A], 1: [B], 2: [D]}, [0, 1]),
        ({0: [A], 1: [D], 2: [B]}, [0]),
        ({0: [B], 1: [D], 2: [A]}, []),
        ({0: [D], 1: [A], 2: [B]}, []),
        ({0: [D], 1: [E], 2: [B, A]}, []),
    ],
)
def test_what_is_in_the_way_of_one_whose_home_is_away_stays(
    held: dict[int, list[DriveId]], able: list[int]
) -> None:
    assert homebound(held, {0: A, 1: B}) == able


def test_what_is_missing_is_in_nobodys_way() -> None:
    assert homebound({0: [B], 1: [], 2: [C]}, HOMES) == [0, 2]
