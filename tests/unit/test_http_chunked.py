"""The chunked transfer coding: strict, bounded, and the same however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.chunked import ChunkedDecoder
from gateway.http.refusals import RefusedError


def decode(data: bytes, *, cuts: list[int] | None = None) -> tuple[bytes, bool, bytes]:
    """Payload, whether it ended, and what came after it."""
    decoder = ChunkedDecoder()
    edges = [0, *sorted(cuts or []), len(data)]
    payload = b""
    for start, end in pairwise(edges):
        if decoder.finished:
            return payload, True, decoder.surplus + data[start:]
        payload += decoder.decode(data[start:end])
    return payload, decoder.finished, decoder.surplus


WHOLE = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-trailer: v\r\n\r\nGET"


def test_a_whole_body_with_extension_trailer_and_surplus() -> None:
    assert decode(WHOLE) == (b"hello world", True, b"GET")


def test_byte_by_byte_gives_the_same() -> None:
    assert decode(WHOLE, cuts=list(range(1, len(WHOLE)))) == (b"hello world", True, b"GET")


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_any_cuts_give_the_same(cuts: list[int]) -> None:
    assert decode(WHOLE, cuts=cuts) == (b"hello world", True, b"GET")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.binary(max_size=20))
def test_what_is_encoded_is_decoded(chunks: list[bytes], surplus: bytes) -> None:
    wire = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert decode(wire + b"0\r\n\r\n" + surplus) == (b"".join(chunks), True, surplus)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1\n",
        b"1\rx",
        b"1\r\r\n",
        b"1;a\x00b\r\n",
        b"1;a\rb\r\n",
        b"1_0\r\n",
        b"10000000000000000\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\rx",
        b"0\r\nno colon\r\n",
        b"0\r\n: v\r\n",
        b"0\r\nx y: v\r\n",
        b"0\r\nx: \x01\r\n",
        b"0\r\n\n",
    ],
)
def test_malformed_codings_are_refused_whole_and_byte_by_byte(data: bytes) -> None:
    with pytest.raises(RefusedError):
        decode(data + b"more\r\n")
    with pytest.raises(RefusedError):
        decode(data + b"more\r\n", cuts=list(range(1, len(data) + 6)))


def test_lines_and_trailers_are_bounded() -> None:
    with pytest.raises(RefusedError):
        decode(b"1;" + b"a" * 5000)
    with pytest.raises(RefusedError):
        decode(b"0\r\n" + b"name: value\r\n" * 1000)


def test_an_unfinished_body_is_not_finished() -> None:
    assert decode(b"5\r\nhel") == (b"hel", False, b"")
    assert decode(b"5\r\nhello\r\n0\r\n") == (b"hello", False, b"")


@given(st.binary(max_size=200))
def test_random_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        payload, _, surplus = decode(data)
    except RefusedError:
        return
    assert len(payload) + len(surplus) <= len(data)
