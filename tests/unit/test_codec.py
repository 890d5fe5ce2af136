"""The codec: every loss pattern, both coders byte for byte, and the traps of the libraries below."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.codec import (
    Buffer,
    Codec,
    checksum,
    checksum_bytes,
    codec_for,
    fragment_size_bytes,
)
from placement.errors import CodingError

SCHEMES = [(2, 1), (3, 2), (2, 2), (4, 2), (8, 3)]
WIDE_SCHEMES = [(8, 5), (10, 4)]
LOSSES_SAMPLED = 150


def content(size_bytes: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size_bytes)


def losses(k: int, m: int) -> list[tuple[int, ...]]:
    return [lost for count in range(m + 1) for lost in combinations(range(k + m), count)]


def check_loss(codec: Codec, stripe: bytes, lost: tuple[int, ...]) -> None:
    fragments = codec.encode(stripe)
    left = {i: part for i, part in enumerate(fragments) if i not in lost}
    assert codec.decode(left, len(stripe)) == stripe
    rebuilt = codec.reconstruct(left, lost, len(stripe))
    assert rebuilt == {i: bytes(fragments[i]) for i in lost}


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(("k", "m"), SCHEMES)
def test_every_loss_pattern_decodes_and_reconstructs(k: int, m: int, direct: bool) -> None:
    codec = Codec(k, m, direct=direct)
    for size in (1, k, 1000 * k + 1):
        stripe = content(size)
        for lost in losses(k, m):
            check_loss(codec, stripe, lost)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(("k", "m"), WIDE_SCHEMES)
def test_sampled_loss_patterns_of_wide_schemes(k: int, m: int, direct: bool) -> None:
    codec = Codec(k, m, direct=direct)
    stripe = content(4099)
    for lost in Random(7).sample(losses(k, m), LOSSES_SAMPLED):
        check_loss(codec, stripe, lost)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "m"), WIDE_SCHEMES)
def test_every_loss_pattern_of_wide_schemes(k: int, m: int) -> None:
    codec = codec_for(k, m)
    stripe = content(777)
    for lost in losses(k, m):
        check_loss(codec, stripe, lost)


@given(
    scheme=st.sampled_from([*SCHEMES, *WIDE_SCHEMES, (2, 16), (32, 16), (1, 1), (1, 4), (5, 0)]),
    size=st.one_of(st.integers(0, 300), st.integers(0, 70_000)),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=120, deadline=None)
def test_direct_calls_and_pyeclib_agree_byte_for_byte(
    scheme: tuple[int, int], size: int, seed: int
) -> None:
    k, m = scheme
    stripe = content(size, seed)
    direct, reference = codec_for(k, m), Codec(k, m, direct=False)
    fragments = [bytes(part) for part in direct.encode(stripe)]
    assert fragments == [bytes(part) for part in reference.encode(stripe)]

    room = bytearray(stripe) + b"\xff" * (direct.padded_size_bytes(size) - size)
    parity = [memoryview(bytearray(fragment_size_bytes(k, size))) for _ in range(m)]
    direct.encode_into(memoryview(room), size, parity)
    each = fragment_size_bytes(k, size)
    assert fragments == [bytes(room[i * each : (i + 1) * each]) for i in range(k)] + [
        bytes(part) for part in parity
    ]

    chosen = Random(seed).sample(range(k + m), k)
    left: dict[int, Buffer] = {i: fragments[i] for i in chosen}
    assert direct.decode(left, size) == reference.decode(left, size) == stripe
    everything = range(k + m)
    assert direct.reconstruct(left, everything, size) == dict(enumerate(fragments))
    assert reference.reconstruct(left, everything, size) == dict(enumerate(fragments))


def test_the_bundled_library_is_called_directly() -> None:
    """Else every figure for the codec is off by an order of magnitude, silently."""
    assert codec_for(4, 2).is_direct


def test_data_fragments_are_views_of_the_stripe() -> None:
    stripe = bytearray(content(4000))
    fragments = codec_for(4, 2).encode(stripe)
    assert all(isinstance(part, memoryview) and part.obj is stripe for part in fragments[:4])


def test_one_data_fragment_means_whole_copies() -> None:
    codec = codec_for(1, 2)
    fragments = codec.encode(b"potsherd")
    assert [bytes(part) for part in fragments] == [b"potsherd"] * 3
    assert codec.decode({2: b"potsherd"}, 8) == b"potsherd"
    assert codec.reconstruct({1: b"potsherd"}, [0, 2], 8) == {0: b"potsherd", 2: b"potsherd"}


def test_no_parity_needs_every_fragment() -> None:
    codec = codec_for(3, 0)
    fragments = codec.encode(b"abcdefgh")
    assert [bytes(part) for part in fragments] == [b"abc", b"def", b"gh\0"]
    assert codec.decode(dict(enumerate(fragments)), 8) == b"abcdefgh"
    with pytest.raises(CodingError):
        codec.decode({0: b"abc", 1: b"def"}, 8)


def test_an_empty_stripe_has_empty_fragments() -> None:
    for k, m in ((1, 2), (4, 2), (3, 0)):
        codec = codec_for(k, m)
        assert [bytes(part) for part in codec.encode(b"")] == [b""] * (k + m)
        assert codec.decode(dict.fromkeys(range(m, k + m), b""), 0) == b""
        codec.encode_into(memoryview(bytearray()), 0, [memoryview(bytearray())] * m)
    assert codec_for(4, 2).reconstruct(dict.fromkeys(range(4), b""), [5], 0) == {5: b""}


@pytest.mark.parametrize("direct", [True, False])
def test_fragments_may_be_any_kind_of_buffer(direct: bool) -> None:
    """pyeclib itself aborts the process on a bytearray or memoryview."""
    codec = Codec(2, 2, direct=direct)
    stripe = content(101)
    fragments = codec.encode(memoryview(bytearray(stripe)))
    padded = memoryview(bytes(60) + bytes(fragments[3]) + bytes(9))
    left: dict[int, Buffer] = {1: bytearray(fragments[1]), 3: padded[60 : 60 + 51]}
    assert codec.decode(left, 101) == stripe


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("index", [-1, 6, 99])
def test_an_index_out_of_range_is_refused(index: int, direct: bool) -> None:
    codec = Codec(4, 2, direct=direct)
    fragments = dict(enumerate(codec.encode(content(64))))
    with pytest.raises(CodingError):
        codec.reconstruct(fragments, [index], 64)
    fragments[index] = fragments.pop(0)
    with pytest.raises(CodingError):
        codec.decode(fragments, 64)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        bytes(15),
        bytes(17),
        memoryview(bytes(32))[::2],
        memoryview(bytes(16)).cast("I"),
        memoryview(bytes(16)).cast("B", (4, 4)),
        "sixteen letters!",
        None,
    ],
)
def test_a_fragment_of_the_wrong_size_or_kind_is_refused(bad: object) -> None:
    codec = codec_for(4, 2)
    fragments = dict(enumerate(codec.encode(content(64))))
    fragments[2] = bad  # type: ignore[assignment]
    with pytest.raises(CodingError):
        codec.decode(fragments, 64)
    with pytest.raises(CodingError):
        codec.reconstruct(fragments, [0], 64)


def test_too_few_fragments_are_refused() -> None:
    codec = codec_for(4, 2)
    fragments = codec.encode(content(64))
    with pytest.raises(CodingError):
        codec.decode({i: fragments[i] for i in (0, 4, 5)}, 64)
    with pytest.raises(CodingError):
        codec.decode(dict(enumerate(fragments)), -1)


def test_buffers_that_encode_into_cannot_use_are_refused() -> None:
    codec = codec_for(4, 2)
    good = [memoryview(bytearray(16)) for _ in range(2)]
    stripe = memoryview(bytearray(64))
    codec.encode_into(stripe, 61, good)
    for room, size, parity in (
        (stripe, 65, good),
        (stripe, -1, good),
        (stripe, 64, good[:1]),
        (stripe, 64, [good[0], memoryview(bytes(16))]),
        (stripe, 64, [good[0], memoryview(bytearray(15))]),
        (stripe, 64, [good[0], memoryview(bytearray(32))[::2]]),
        (memoryview(bytearray(128))[::2], 64, good),
        (memoryview(bytes(64)), 61, good),
    ):
        with pytest.raises(CodingError):
            codec.encode_into(room, size, parity)
    with pytest.raises(CodingError):
        codec.encode(memoryview(bytes(64))[::2])


def test_a_read_only_stripe_without_padding_can_be_encoded_in_place() -> None:
    stripe = content(64)
    parity = [memoryview(bytearray(16)) for _ in range(2)]
    codec_for(4, 2).encode_into(memoryview(stripe), 64, parity)
    assert [bytes(part) for part in parity] == [
        bytes(part) for part in codec_for(4, 2).encode(stripe)[4:]
    ]


@pytest.mark.parametrize(("k", "m"), [(0, 1), (33, 1), (4, 17), (4, -1)])
def test_schemes_beyond_the_format_are_refused(k: int, m: int) -> None:
    with pytest.raises(CodingError):
        Codec(k, m)


def test_a_full_size_stripe_survives() -> None:
    for k, m in SCHEMES:
        stripe = content(1 << 20)
        check_loss(codec_for(k, m), stripe, tuple(range(m)))


def test_threads_may_share_a_codec() -> None:
    codec = Codec(4, 2)

    def work(seed: int) -> None:
        for lost in losses(4, 2):
            check_loss(codec, content(2000 + seed, seed), lost)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_the_checksum_is_xxh3_64_little_endian() -> None:
    """Known answer: xxh3-64 of nothing, seed 0."""
    assert checksum(b"") == 0x2D06800538D394C2
    assert checksum_bytes(b"") == bytes.fromhex("c294d3380580062d")
    assert checksum(memoryview(b"-abc-")[1:4]) == checksum(bytearray(b"abc"))


def test_tuning_the_allocator_ends_the_page_faults_of_coding() -> None:
    """In a process of its own: it changes the process for good."""
    script = """
import resource, sys
from placement.allocator import tune_allocator
from placement.codec import codec_for
if sys.argv[1] == "tuned":
    assert tune_allocator()
codec, stripe = codec_for(4, 2), bytes(1 << 20)
def work():
    left = dict(list(enumerate(codec.encode(stripe)))[2:])
    return [codec.decode(left, len(stripe)) for _ in range(8)]
for _ in range(4):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(mode: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", script, mode],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        return int(done.stdout)

    assert faults("tuned") < faults("plain") / 4
