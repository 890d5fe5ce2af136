"""aws-chunked bodies made by a small independent encoder, decoded whole, in pieces and broken."""

import asyncio
import hashlib
import hmac
import random
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.checksums import ChecksumAlgorithm, checksum_of
from gateway.s3.chunked import ChunkedDecoder
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.payload import BytesBody, Payload, make_payload
from gateway.s3.signature import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    Verified,
)

FORMS = [STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER]
KEY = b"k" * 32
SCOPE = "20250101/us-east-1/s3/aws4_request"
STAMP = "20250101T000000Z"
SEED = "a" * 64
TRAILER = "x-amz-checksum-crc32"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def encode(
    data: bytes, form: str, chunk: int = 8192, *, odd: bool = False, checksum: str | None = None
) -> bytes:
    """`odd`: the line ends of minio-go, which adds "\\n" to a trailer and a final line break."""
    signed = form != STREAMING_UNSIGNED_TRAILER
    previous = SEED
    out = b""
    pieces = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    for piece in [*pieces, b""]:
        head = f"{len(piece):x}"
        if signed:
            text = "\n".join(
                [
                    "AWS4-HMAC-SHA256-PAYLOAD",
                    STAMP,
                    SCOPE,
                    previous,
                    EMPTY,
                    hashlib.sha256(piece).hexdigest(),
                ]
            )
            previous = hmac.new(KEY, text.encode(), "sha256").hexdigest()
            head += f";chunk-signature={previous}"
        out += head.encode() + b"\r\n" + piece + (b"\r\n" if piece else b"")
    if form == STREAMING_SIGNED:
        return out + b"\r\n"
    if checksum is None:
        checksum = b64encode(checksum_of(ChecksumAlgorithm.CRC32, data)).decode()
    line = f"{TRAILER}:{checksum}"
    out += (line + ("\n" if odd else "")).encode() + b"\r\n"
    if signed:
        digest = hashlib.sha256(f"{line}\n".encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{STAMP}\n{SCOPE}\n{previous}\n{digest}"
        signature = hmac.new(KEY, text.encode(), "sha256").hexdigest()
        out += f"x-amz-trailer-signature:{signature}\r\n".encode()
    return out + b"\r\n"


def verified(form: str) -> Verified:
    return Verified(form, KEY, SEED, STAMP, SCOPE)


def decoder_for(size: int, form: str) -> ChunkedDecoder:
    return ChunkedDecoder(size, verified(form), None if form == STREAMING_SIGNED else TRAILER)


def decode(raw: bytes, size: int, form: str, step: int | None = None) -> bytes:
    """`step` None: the whole body at once, as small ones come."""
    decoder = decoder_for(size, form)
    if step is None:
        data = decoder.decode_whole(raw)
        assert decoder.done
        return data
    target = memoryview(bytearray(size))
    produced = 0
    for start in range(0, len(raw), step):
        piece = memoryview(raw)[start : start + step]
        used, made = decoder.decode_into(piece, target[produced:])
        assert used == len(piece)
        produced += made
    decoder.finish()
    assert produced == size
    return bytes(target)


DATA = random.Random(1).randbytes(20_000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 20_000])
@pytest.mark.parametrize("odd", [False, True])
def test_whole_and_byte_by_byte(form: str, size: int, odd: bool) -> None:
    data = DATA[:size]
    raw = encode(data, form, odd=odd)
    assert decode(raw, size, form) == data
    assert decode(raw, size, form, step=len(raw)) == data
    assert decode(raw, size, form, step=1) == data


@given(
    form=st.sampled_from(FORMS),
    size=st.integers(0, 20_000),
    chunk=st.integers(8192, 12_000),
    step=st.integers(1, 5000),
)
def test_any_split(form: str, size: int, chunk: int, step: int) -> None:
    assert decode(encode(DATA[:size], form, chunk), size, form, step) == DATA[:size]


@given(
    form=st.sampled_from(FORMS),
    at=st.integers(0),
    flip=st.integers(1, 255),
    step=st.sampled_from([None, 1, 1000]),
)
def test_any_flipped_byte_of_a_signed_body_is_noticed(
    form: str, at: int, flip: int, step: int | None
) -> None:
    data = DATA[:300]
    raw = bytearray(encode(data, form))
    at %= len(raw)
    raw[at] ^= flip
    try:
        result = decode(bytes(raw), len(data), form, step)
    except S3Error:
        return
    if form == STREAMING_UNSIGNED_TRAILER:
        # Without signatures the checksum is compared by the payload.
        return
    # Only the case of hexadecimal digits and of header names may change, and the white space that
    # may follow a trailer's value (RFC 9110, section 5.5).
    assert result == data
    same = [b"".join(body.lower().split()) for body in (bytes(raw), encode(data, form))]
    assert same[0] == same[1]


@pytest.mark.parametrize("form", FORMS)
def test_a_body_cut_anywhere_is_incomplete(form: str) -> None:
    raw = encode(DATA[:100], form)
    for end in range(len(raw)):
        with pytest.raises(S3Error) as caught:
            decode(raw[:end], 100, form)
        assert caught.value.code is ErrorCode.INCOMPLETE_BODY


@pytest.mark.parametrize("form", FORMS)
def test_bytes_after_the_end_are_refused(form: str) -> None:
    with pytest.raises(S3Error) as caught:
        decode(encode(DATA[:100], form) + b"GET /", 100, form)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def code_of(raw: bytes, size: int, form: str) -> ErrorCode:
    with pytest.raises(S3Error) as caught:
        decode(raw, size, form)
    return caught.value.code


def test_sizes_are_checked() -> None:
    form = STREAMING_UNSIGNED_TRAILER
    raw = encode(DATA[:100], form)
    assert code_of(raw, 101, form) is ErrorCode.INCOMPLETE_BODY
    assert code_of(raw, 99, form) is ErrorCode.INCOMPLETE_BODY
    small = encode(DATA[:100], form, chunk=10)
    assert code_of(small, 100, form) is ErrorCode.INVALID_CHUNK_SIZE
    assert code_of(b"f" * 13 + b"\r\n", 100, form) is ErrorCode.INVALID_REQUEST
    assert code_of(b"64" * 600, 100, form) is ErrorCode.INVALID_REQUEST
    assert code_of(b"64;x=y\r\n", 100, form) is ErrorCode.INVALID_REQUEST
    assert code_of(b"-1\r\n", 100, form) is ErrorCode.INVALID_REQUEST
    assert code_of(b"64\n", 100, form) is ErrorCode.INVALID_REQUEST


def test_signatures_chain() -> None:
    raw = encode(DATA[:8192], STREAMING_SIGNED)
    swapped = raw.replace(DATA[:10], DATA[10:20])
    assert code_of(swapped, 8192, STREAMING_SIGNED) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    other = Verified(STREAMING_SIGNED, KEY, "b" * 64, STAMP, SCOPE)
    decoder = ChunkedDecoder(8192, other, None)
    with pytest.raises(S3Error, match="signature"):
        decoder.decode_into(memoryview(raw), memoryview(bytearray(8192)))


def test_trailers_are_checked() -> None:
    form = STREAMING_UNSIGNED_TRAILER
    raw = encode(b"abc", form)
    missing = b"3\r\nabc\r\n0\r\n\r\n"
    assert code_of(missing, 3, form) is ErrorCode.MALFORMED_TRAILER
    other = raw.replace(b"crc32", b"crc64")
    assert code_of(other, 3, form) is ErrorCode.MALFORMED_TRAILER
    twice = b"3\r\nabc\r\n0\r\n" + f"{TRAILER}:a\r\n{TRAILER}:b\r\n\r\n".encode()
    assert code_of(twice, 3, form) is ErrorCode.MALFORMED_TRAILER
    signed = encode(b"abc", STREAMING_SIGNED_TRAILER, checksum="AAAAAA==")
    tampered = signed.replace(b"AAAAAA==", b"BAAAAA==")
    assert code_of(tampered, 3, STREAMING_SIGNED_TRAILER) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


@given(st.binary(max_size=300), st.sampled_from(FORMS), st.integers(0, 100))
def test_random_bytes_end_in_an_s3_error(raw: bytes, form: str, size: int) -> None:
    with pytest.raises(S3Error):
        decode(raw, size, form)


class Trickle:
    """A raw body that is not here yet."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes: int | None = len(data)
        self._body = BytesBody(data)

    async def read_into(self, buffer: memoryview) -> int:
        return await self._body.read_into(buffer)

    def take_now(self) -> bytes | None:
        return None


def payload_of(raw: bytes, size: int, form: str, *, here: bool) -> Payload:
    headers = {"x-amz-decoded-content-length": str(size)}
    if form != STREAMING_SIGNED:
        headers["x-amz-trailer"] = TRAILER
    body = BytesBody(raw) if here else Trickle(raw)
    return make_payload(headers, body, verified(form))


@given(
    form=st.sampled_from(FORMS),
    size=st.integers(0, 20_000),
    chunk=st.integers(8192, 12_000),
    room=st.integers(1, 9000),
    odd=st.booleans(),
)
def test_payload_reads_in_place(form: str, size: int, chunk: int, room: int, odd: bool) -> None:
    async def read() -> bytes:
        payload = payload_of(encode(DATA[:size], form, chunk, odd=odd), size, form, here=False)
        digests = payload.digests(ChecksumAlgorithm.CRC64NVME)
        got = b""
        buffer = memoryview(bytearray(room))
        while count := await payload.read_into(buffer):
            digests.update(buffer[:count])
            got += buffer[:count]
        payload.verify(digests)
        return got

    assert asyncio.run(read()) == DATA[:size]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("here", [True, False])
def test_payload_at_once(form: str, here: bool) -> None:
    for size in (0, 5, 9000):
        payload = payload_of(encode(DATA[:size], form), size, form, here=here)
        assert asyncio.run(payload.read_document(10_000)) == DATA[:size]


def test_a_wrong_trailing_checksum_is_a_bad_digest() -> None:
    for form, checksum, code in (
        (STREAMING_UNSIGNED_TRAILER, "AAAAAA==", ErrorCode.BAD_DIGEST),
        (STREAMING_SIGNED_TRAILER, "AAAAAA==", ErrorCode.BAD_DIGEST),
        (STREAMING_UNSIGNED_TRAILER, "nonsense", ErrorCode.INVALID_REQUEST),
    ):
        payload = payload_of(encode(b"abc", form, checksum=checksum), 3, form, here=True)
        with pytest.raises(S3Error) as caught:
            asyncio.run(payload.read_document(10))
        assert caught.value.code is code


def test_a_cut_payload_is_incomplete() -> None:
    form = STREAMING_SIGNED
    raw = encode(DATA[:9000], form)
    for here in (True, False):
        for end in (0, 10, 100, 600, 8500, len(raw) - 1):
            payload = payload_of(raw[:end], 9000, form, here=here)
            with pytest.raises(S3Error) as caught:
                asyncio.run(payload.read_document(10_000))
            assert caught.value.code is ErrorCode.INCOMPLETE_BODY
