"""A request body as S3 sees it: decoded, of known length, with what it was announced to be.

`Payload` never hashes; whoever consumes the bytes feeds `digests()` and then calls `verify`.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from gateway.s3.checksums import (
    ChecksumAlgorithm,
    Digests,
    algorithm_named,
    decode_base64,
    encode_base64,
    header_checksum,
    trailer_algorithm,
)
from gateway.s3.chunked import ChunkedDecoder
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.signature import (
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Verified,
)

UNSIZED_BODY_LIMIT_BYTES: Final = 1024 * 1024
"""Bodies that come chunked without a length are gathered to learn it, up to this size."""

_READ_AHEAD_BYTES: Final = 256 * 1024
"""Raw bytes of an aws-chunked body that are read at once and then copied out of their framing: many
clients send chunks of 64 KiB, and reading each head and each chunk by itself takes several times
as many turns of the loop. What a chunk holds beyond it goes straight to the consumer."""
_MAX_SIZE_DIGITS: Final = 15
_OF_BODIES: Final = frozenset({"content-md5", "x-amz-sdk-checksum-algorithm", "x-amz-trailer"})
_CHECKSUM_MODE: Final = "x-amz-checksum-mode"
"""Asks for the checksum of an object; the only header of its kind that tells of no body."""


class RawBody(Protocol):
    """The body as HTTP framed it (see `gateway.http.message.RawBody`)."""

    size_bytes: int | None

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes only at the end."""
        ...

    def take_now(self) -> bytes | None:
        """The whole rest if it is here already."""
        ...


class BytesBody:
    """A raw body in memory."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes: int | None = len(data)
        self._data = data
        self._read_bytes = 0

    async def read_into(self, buffer: memoryview) -> int:
        """The next bytes."""
        piece = memoryview(self._data)[self._read_bytes : self._read_bytes + len(buffer)]
        buffer[: len(piece)] = piece
        self._read_bytes += len(piece)
        return len(piece)

    def take_now(self) -> bytes | None:
        """All bytes not read yet."""
        data = self._data[self._read_bytes :]
        self._read_bytes = len(self._data)
        return data


async def gather_unsized(raw: RawBody) -> RawBody:
    """A body of known size: the same one, or its bytes when HTTP's chunked coding hid its length.

    MissingContentLength when it is longer than 1 MiB: S3 demands a length for such.
    """
    if raw.size_bytes is not None:
        return raw
    gathered = bytearray()
    piece = memoryview(bytearray(64 * 1024))
    while count := await raw.read_into(piece):
        gathered += piece[:count]
        if len(gathered) > UNSIZED_BODY_LIMIT_BYTES:
            raise S3Error(ErrorCode.MISSING_CONTENT_LENGTH)
    return BytesBody(bytes(gathered))


class Payload:
    """Implements `message.Body` over a raw body. Made by `make_payload`."""

    def __init__(
        self,
        raw: RawBody,
        size_bytes: int,
        decoder: ChunkedDecoder | None,
        *,
        content_sha256: str | None,
        content_md5: bytes | None,
        checksum: tuple[ChecksumAlgorithm, bytes | None] | None,
    ) -> None:
        self.size_bytes = size_bytes
        self._raw = raw
        self._left_bytes = size_bytes
        self._decoder = decoder
        self._content_sha256 = content_sha256
        self._content_md5 = content_md5
        self._checksum = checksum
        self._scratch: memoryview | None = None
        self._held = memoryview(b"")
        self._trailers: dict[str, str] = {}

    @property
    def algorithm(self) -> ChecksumAlgorithm | None:
        """The additional checksum that the client sends, in a header or a trailer."""
        return None if self._checksum is None else self._checksum[0]

    @property
    def has_integrity(self) -> bool:
        """Whether the client sent a Content-MD5 or an additional checksum."""
        return self._content_md5 is not None or self._checksum is not None

    @property
    def trailers(self) -> dict[str, str]:
        """Trailing headers (lower case), complete once the body has been read to its end."""
        return self._trailers if self._decoder is None else self._decoder.trailers

    def digests(self, default: ChecksumAlgorithm | None = None, *, md5: bool = True) -> Digests:
        """What the consumer of the bytes has to compute.

        `default` is the checksum to compute when the client sends none; MD5 is always computed
        when a Content-MD5 has to be compared.
        """
        return Digests(
            self.algorithm or default,
            md5=md5 or self._content_md5 is not None,
            payload_sha256=self._content_sha256 is not None,
        )

    def verify(self, digests: Digests) -> None:
        """After the last byte: compare what was computed with what the client announced.

        Raises XAmzContentSHA256Mismatch, BadDigest, InvalidRequest (a trailer that is no checksum).
        """
        assert self._left_bytes == 0, "the body has not been read to its end"
        assert self._decoder is None or self._decoder.done
        if self._content_sha256 is not None:
            computed = digests.payload_sha256
            assert computed is not None
            if computed.hex() != self._content_sha256.lower():
                raise S3Error(
                    ErrorCode.X_AMZ_CONTENT_SHA256_MISMATCH,
                    details={
                        "ClientComputedContentSHA256": self._content_sha256,
                        "S3ComputedContentSHA256": computed.hex(),
                    },
                )
        if self._content_md5 is not None:
            compare_md5(self._content_md5, digests)
        if self._checksum is not None:
            algorithm, expected = self._checksum
            if expected is None:
                expected = algorithm.decode(self.trailers[algorithm.header])
            compare_checksum(algorithm, expected, digests)

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes than its length only at the body's end, 0 after it.

        When the last byte is returned the trailers have been read and every signature checked.
        """
        wanted = min(len(buffer), self._left_bytes)
        if self._decoder is not None:
            return await self._read_decoded(self._decoder, buffer[:wanted])
        if wanted == 0:
            return 0
        count = await self._raw.read_into(buffer[:wanted])
        if count < wanted:
            raise S3Error(ErrorCode.INCOMPLETE_BODY)
        self._left_bytes -= count
        return count

    def take_now(self) -> bytes | None:
        """The whole body at once if it has been received already, else None (nothing is taken).

        Only for a body of which nothing was read yet.
        """
        assert self._left_bytes == self.size_bytes
        raw = self._raw.take_now()
        if raw is None:
            return None
        decoder = self._decoder
        if decoder is None:
            if len(raw) != self.size_bytes:
                raise S3Error(ErrorCode.INCOMPLETE_BODY)
            self._left_bytes = 0
            return raw
        data = decoder.decode_whole(raw)
        self._left_bytes = 0
        return data

    def put_back(self, data: bytes) -> None:
        """The body, which was read to its end before, comes once more; its trailers stay."""
        assert self._left_bytes in (0, self.size_bytes)
        assert len(data) == self.size_bytes
        self._raw, self._left_bytes = BytesBody(data), self.size_bytes
        if self._decoder is not None:
            self._trailers, self._decoder = self._decoder.trailers, None

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole (rest of the) body; EntityTooLarge beyond the limit. For small ones."""
        if self._left_bytes > limit_bytes:
            raise S3Error(ErrorCode.ENTITY_TOO_LARGE)
        if self._left_bytes == self.size_bytes and (data := self.take_now()) is not None:
            return data
        target = bytearray(self._left_bytes)
        count = await self.read_into(memoryview(target))
        assert count == len(target)
        return bytes(target)

    async def read_document(self, limit_bytes: int) -> bytes:
        """The whole body, its checksums verified; MaxMessageLengthExceeded beyond the limit."""
        if self.size_bytes > limit_bytes:
            raise S3Error(
                ErrorCode.MAX_MESSAGE_LENGTH_EXCEEDED,
                details={"MaxMessageLengthBytes": str(limit_bytes)},
            )
        data = await self.read_all(limit_bytes)
        digests = self.digests(md5=False)
        digests.update(data)
        self.verify(digests)
        return data

    async def _read_decoded(self, decoder: ChunkedDecoder, buffer: memoryview) -> int:
        """Fill the buffer. Long chunks are received in place, short ones pass the scratch."""
        filled = 0
        while filled < len(buffer):
            if self._held:
                consumed, produced = decoder.decode_into(self._held, buffer[filled:])
                self._held = self._held[consumed:]
                filled += produced
            elif decoder.chunk_left_bytes > _READ_AHEAD_BYTES:
                piece = buffer[filled : filled + decoder.chunk_left_bytes]
                count = await self._raw.read_into(piece)
                if count < len(piece):
                    raise S3Error(ErrorCode.INCOMPLETE_BODY)
                decoder.account(piece)
                filled += count
            else:
                await self._read_ahead()
        self._left_bytes -= filled
        if self._left_bytes == 0 and not decoder.done:
            await self._read_end(decoder)
        return filled

    async def _read_end(self, decoder: ChunkedDecoder) -> None:
        """Consume the framing after the last byte, to the end of the raw body."""
        nothing = memoryview(bytearray(0))
        while True:
            if self._held:
                consumed, _ = decoder.decode_into(self._held, nothing)
                # Data cannot follow: the decoder refuses chunks beyond the announced size.
                assert consumed == len(self._held)
                self._held = self._held[consumed:]
            if not await self._read_ahead(at_end=True):
                decoder.finish()
                return

    async def _read_ahead(self, *, at_end: bool = False) -> bool:
        """Fill the scratch; False when the raw body has ended (an error unless `at_end`)."""
        if self._scratch is None:
            size_bytes = self._raw.size_bytes
            room = _READ_AHEAD_BYTES if size_bytes is None else min(size_bytes, _READ_AHEAD_BYTES)
            self._scratch = memoryview(bytearray(room))
        count = await self._raw.read_into(self._scratch)
        if count == 0 and not at_end:
            raise S3Error(ErrorCode.INCOMPLETE_BODY)
        self._held = self._scratch[:count]
        return count > 0


def make_payload(
    headers: Mapping[str, str],
    raw: RawBody,
    verified: Verified,
    *,
    length_required: bool = False,
    body_checksums: bool = True,
) -> Payload:
    """The payload of an authenticated request; nothing is read.

    `length_required`: a missing Content-Length is an error rather than an empty body.
    `body_checksums` is false where x-amz-checksum-* describe something else than this body
    (CompleteMultipartUpload: the object). Raises MissingContentLength, InvalidDigest,
    InvalidRequest, InvalidArgument, NotImplemented.
    """
    form = verified.content_sha256
    decoder: ChunkedDecoder | None = None
    algorithm = trailer_algorithm(headers)
    if form.startswith("STREAMING-"):
        size_bytes = _decoded_size(headers)
        with_trailer = form in (STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER)
        if not verified.signing_key and form != STREAMING_UNSIGNED_TRAILER:
            raise invalid_argument(
                "x-amz-content-sha256", form, "This payload form needs signature version 4."
            )
    else:
        with_trailer = False
        if raw.size_bytes is None or (
            length_required and raw.size_bytes == 0 and "content-length" not in headers
        ):
            raise S3Error(ErrorCode.MISSING_CONTENT_LENGTH)
        size_bytes = raw.size_bytes
    if algorithm is not None and not with_trailer:
        raise S3Error(
            ErrorCode.INVALID_REQUEST, "x-amz-trailer needs a payload form with trailers."
        )
    checksum = announced_checksum(headers, algorithm) if body_checksums else None
    if form.startswith("STREAMING-"):
        trailer = None if algorithm is None else algorithm.header
        decoder = ChunkedDecoder(size_bytes, verified, trailer)
    plain = decoder is not None or form == UNSIGNED_PAYLOAD
    return Payload(
        raw,
        size_bytes,
        decoder,
        content_sha256=None if plain else form,
        content_md5=announced_md5(headers),
        checksum=checksum,
    )


def tells_of_body(headers: Mapping[str, str], verified: Verified) -> bool:
    """Whether a request without a body says something about one, which `make_payload` must judge."""
    if verified.content_sha256.startswith("STREAMING-") or not _OF_BODIES.isdisjoint(headers):
        return True
    for name in headers:  # noqa: SIM110  a generator would cost as much as all the rest
        if name.startswith("x-amz-checksum-") and name != _CHECKSUM_MODE:
            return True
    return False


def compare_md5(expected: bytes, digests: Digests) -> None:
    """BadDigest unless the bytes have the MD5 that the client announced."""
    if digests.md5 != expected:
        raise S3Error(
            ErrorCode.BAD_DIGEST,
            details={
                "ExpectedDigest": encode_base64(expected),
                "CalculatedDigest": encode_base64(digests.md5),
            },
        )


def compare_checksum(algorithm: ChecksumAlgorithm, expected: bytes, digests: Digests) -> None:
    """BadDigest unless the bytes have the additional checksum that the client announced."""
    if digests.checksum != expected:
        raise S3Error(
            ErrorCode.BAD_DIGEST,
            f"The {algorithm.text} you specified did not match the calculated checksum.",
        )


def _decoded_size(headers: Mapping[str, str]) -> int:
    text = headers.get("x-amz-decoded-content-length")
    if text is None:
        raise S3Error(
            ErrorCode.MISSING_CONTENT_LENGTH,
            "You must provide the x-amz-decoded-content-length HTTP header.",
        )
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_SIZE_DIGITS:
        raise invalid_argument(
            "x-amz-decoded-content-length", text, "The decoded content length is not a number."
        )
    return int(text)


def announced_md5(headers: Mapping[str, str]) -> bytes | None:
    """The Content-MD5 that the headers tell; InvalidDigest when it is none."""
    text = headers.get("content-md5")
    if text is None:
        return None
    value = decode_base64(text)
    if value is None or len(value) != 16:
        raise S3Error(ErrorCode.INVALID_DIGEST, details={"Content-MD5": text})
    return value


def announced_checksum(
    headers: Mapping[str, str], trailer: ChecksumAlgorithm | None = None
) -> tuple[ChecksumAlgorithm, bytes | None] | None:
    """(algorithm, value) that the client announces; the value is None while it is to trail."""
    in_header = header_checksum(headers)
    if in_header is not None and trailer is not None:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    expected: tuple[ChecksumAlgorithm, bytes | None] | None = None
    if in_header is not None:
        expected = in_header[0], in_header[0].decode(in_header[1])
    elif trailer is not None:
        expected = trailer, None
    named = headers.get("x-amz-sdk-checksum-algorithm")
    if named is not None:
        algorithm = algorithm_named(named, "x-amz-sdk-checksum-algorithm")
        if expected is None:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or "
                "x-amz-trailer headers were found.",
            )
        if expected[0] is not algorithm:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "Value for x-amz-sdk-checksum-algorithm header is invalid.",
            )
    return expected
