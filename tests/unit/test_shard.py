"""Envelope, geometry and footer of shards."""

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from placement.ids import BlobId
from storage_node.port import ShardId
from storage_node.shard import (
    FOOTER_SIZE_BYTES,
    ShardEnvelope,
    decode_envelope,
    decode_footer,
    encode_envelope,
    encode_footer,
    envelopes_like,
    is_intact,
    shard_size_bytes,
    tail_length,
)

ENVELOPE = ShardEnvelope(b"g", b"b" * 16, 1, 4, 2, 1024, 2500, b"key", b"record", 99)
GOLDEN = "019cc40167c41062626262626262626262626262626262010402cd0400cd09c4c4036b6579c4067265636f72646300c400"


def body_of(envelope: ShardEnvelope) -> bytes:
    body, left = b"", envelope.size_bytes
    while left > 0:
        fragment = bytes([left % 251]) * -(-min(left, envelope.stripe_size_bytes) // envelope.k)
        body += xxhash.xxh3_64_intdigest(fragment).to_bytes(8, "little") + fragment
        left -= envelope.stripe_size_bytes
    return body


def test_an_envelope_has_these_bytes() -> None:
    assert encode_envelope(ENVELOPE).hex() == GOLDEN
    assert decode_envelope(bytes.fromhex(GOLDEN)) == ENVELOPE


@given(st.binary(max_size=255), st.binary(max_size=255), st.integers(0, 127), st.binary())
def test_envelopes_of_one_blob_are_encoded_as_each_alone(
    group: bytes, blob: bytes, index: int, record: bytes
) -> None:
    first = msgspec.structs.replace(ENVELOPE, group=group, blob=blob, index=0, record=record)
    alone = encode_envelope(msgspec.structs.replace(first, index=index))
    assert envelopes_like(first)(index) == alone


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02" + encode_envelope(ENVELOPE)[1:], b"\x01\xc0"]
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="envelope"):
        decode_envelope(data)


def test_a_cut_envelope_is_refused_and_so_are_trailing_bytes() -> None:
    data = encode_envelope(ENVELOPE)
    for cut in range(len(data)):
        with pytest.raises(ValueError, match="envelope"):
            decode_envelope(data[:cut])
    with pytest.raises(ValueError, match="envelope"):
        decode_envelope(data + b"\0")


@given(st.integers(0, 5000), st.integers(1, 8), st.integers(1, 2000))
def test_the_size_of_a_shard_follows_from_its_geometry(size: int, k: int, stripe: int) -> None:
    envelope = ShardEnvelope(b"g", b"b" * 16, 0, k, 1, stripe, size)
    body = body_of(envelope)
    assert len(body) == shard_size_bytes(size, k, stripe)
    assert is_intact(envelope, len(body), lambda at, length: body[at : at + length])
    assert not is_intact(envelope, len(body) + 1, lambda at, length: body[at : at + length])


def test_every_flipped_byte_of_a_shard_is_found() -> None:
    body = body_of(ENVELOPE)
    for at in range(len(body)):
        bad = body[:at] + bytes([body[at] ^ 128]) + body[at + 1 :]
        assert not is_intact(ENVELOPE, len(bad), lambda o, n, bad=bad: bad[o : o + n])  # type: ignore[misc]


def test_a_footer_reads_back_from_the_end_of_its_file() -> None:
    shard = ShardId(BlobId(b"b" * 16), 1)
    tail = encode_footer(shard, b"envelope", 777)
    assert tail_length(tail[-FOOTER_SIZE_BYTES:]) == len(tail)
    footer = decode_footer(tail, 777 + len(tail))
    assert footer is not None
    assert (footer.shard, footer.body_length, footer.envelope) == (shard, 777, b"envelope")
    assert decode_footer(tail, 778 + len(tail)) is None
    for at in range(len(tail)):
        assert decode_footer(tail[:at], 777 + at) is None
        flipped = tail[:at] + bytes([tail[at] ^ 1]) + tail[at + 1 :]
        assert decode_footer(flipped, 777 + len(tail)) is None
