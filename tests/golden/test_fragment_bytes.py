"""Fragments as they lie on drives. A change here makes stored objects unreadable."""

import pytest

from placement.codec import Codec, checksum_bytes, codec_for

GOLDEN = [
    (1, 2, 5, "0102030405 0102030405 0102030405"),
    (2, 1, 11, "010203040506 0708090a0b00 78f288047e03"),
    (3, 2, 1, "01 00 00 f4 47"),
    (4, 2, 11, "010203 040506 070809 0a0b00 4a12b1 a4d578"),
    (4, 2, 16, "01020304 05060708 090a0b0c 0d0e0f10 1a7a5a3d 9afada3c"),
    (
        8,
        3,
        40,
        "0102030405 060708090a 0b0c0d0e0f 1011121314 1516171819 1a1b1c1d1e 1f20212223 2425262728"
        " e1d6cd4bec a4a1d36d8c 4ecc1bfa44",
    ),
]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(("k", "m", "size", "expected"), GOLDEN)
def test_fragments_of_the_bytes_one_two_three(
    k: int, m: int, size: int, expected: str, direct: bool
) -> None:
    stripe = bytes(range(1, size + 1))
    fragments = [bytes(part).hex() for part in Codec(k, m, direct=direct).encode(stripe)]
    assert fragments == expected.split()


def test_a_stripe_reads_back_from_recorded_parity() -> None:
    left = {1: bytes.fromhex("040506"), 3: bytes.fromhex("0a0b00")}
    left |= {4: bytes.fromhex("4a12b1"), 5: bytes.fromhex("a4d578")}
    assert codec_for(4, 2).decode(left, 11) == bytes(range(1, 12))


def test_the_checksum_before_a_fragment() -> None:
    assert checksum_bytes(b"").hex() == "c294d3380580062d"
    assert checksum_bytes(bytes.fromhex("010203")).hex() == "3b73ae32769bceeb"
