"""Sizes on the command line."""

import pytest

from ops.limits_cli import parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("1024", 1024), ("10GiB", 10 << 30), ("10gib", 10 << 30), ("10 GiB", 10 << 30)),
        *(
            ("500MB", 500_000_000),
            ("1.5KiB", 1536),
            ("2.125kB", 2125),
            ("7B", 7),
            ("1EiB", 1 << 60),
        ),
    ],
)
def test_sizes_have_units_of_a_thousand_or_of_1024(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "ten", "-1", "1e3", "1XB", "1iB", "1.GiB", "0x10", "1 2", "٣"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_people_read_units_of_1024() -> None:
    assert [shown_size(n) for n in (0, 1023, 1536, 10 << 30)] == [
        *("0 B", "1023 B", "1.5 KiB", "10.0 GiB")
    ]
