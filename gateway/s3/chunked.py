"""Decoder of S3's aws-chunked bodies: sizes, chunk signatures and trailers, without I/O.

Source: S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload
in Multiple Chunks" and "… including trailing headers". Not to be confused with HTTP's own chunked
transfer coding, which is undone before.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.signature import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    Verified,
    mismatch,
    signer_with,
)

MIN_CHUNK_BYTES: Final = 8192
"""Every chunk but the last must have at least this size."""
MAX_LINE_BYTES: Final = 1024
MAX_TRAILER_LINES: Final = 8
SIGNATURE_TRAILER: Final = "x-amz-trailer-signature"

_EMPTY_SHA256: Final = hashlib.sha256().hexdigest()
_SIGNED_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,12});chunk-signature=([0-9a-f]{64})\r\n")
_SIGNED_END: Final = re.compile(rb"\r\n0;chunk-signature=([0-9a-f]{64})\r\n\r\n")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PLAIN_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,12})\r\n")


class ChunkedDecoder:
    """Feed it raw bytes with `decode_into`, or let bytes of the current chunk be received in place
    and report them with `account`.

    Data is handed out before its chunk's signature is checked (chunks may be of any size and are
    not gathered); so a body counts as received only once `done` is true. Raises S3Error:
    SignatureDoesNotMatch, IncompleteBody, InvalidChunkSizeError, MalformedTrailerError,
    InvalidRequest.
    """

    def __init__(self, decoded_size_bytes: int, verified: Verified, trailer: str | None) -> None:
        form = verified.content_sha256
        assert form in (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER)
        self.trailers: dict[str, str] = {}
        self.chunk_left_bytes = 0
        """Bytes of the current chunk's data still to come; while 0, lines of framing are due."""
        self.done = False
        """The closing empty line has been read and everything has been checked."""
        self._signed = form != STREAMING_UNSIGNED_TRAILER
        self._trailer_signed = form == STREAMING_SIGNED_TRAILER
        self._trailer = trailer
        self._signer = signer_with(verified.signing_key)
        self._string_head = f"AWS4-HMAC-SHA256-PAYLOAD\n{verified.timestamp}\n{verified.scope}\n"
        self._verified = verified
        self._previous = verified.seed_signature
        self._undeclared_bytes = decoded_size_bytes
        self._handle_line: Callable[[ChunkedDecoder, bytes], None] = ChunkedDecoder._start_chunk
        # Not bound: a decoder that refers to itself would wait for the collector of cycles.
        self._partial = b""
        self._chunk_signature = ""
        self._small_chunk_seen = False
        self._trailer_signature: str | None = None
        self._trailer_lines = 0

    def decode_whole(self, raw: bytes) -> bytes:
        """All data of a raw body that is all there; nothing was decoded before."""
        data = self._decode_single(raw)
        if data is None:
            target = bytearray(self._undeclared_bytes)
            _, produced = self.decode_into(memoryview(raw), memoryview(target))
            self.finish()
            assert produced == len(target)
            data = bytes(target)
        return data

    def _decode_single(self, raw: bytes) -> bytes | None:
        """The same of what small bodies look like: one signed chunk and the last one, no trailers.
        None: it looks otherwise."""
        if not self._signed or self._trailer_signed:
            return None
        head = _SIGNED_LINE.match(raw)
        if head is None or int(head[1], 16) != self._undeclared_bytes or not self._undeclared_bytes:
            return None
        end = head.end() + self._undeclared_bytes
        tail = _SIGNED_END.fullmatch(raw, end)
        if tail is None:
            return None
        data = raw[head.end() : end]
        self._chunk_signature = head[2].decode("ascii")
        self._check_chunk(hashlib.sha256(data).hexdigest())
        self._chunk_signature = tail[1].decode("ascii")
        self._check_chunk(_EMPTY_SHA256)
        self._undeclared_bytes = 0
        self._handle_line = ChunkedDecoder._after_end
        self.done = True
        return data

    def decode_into(self, source: memoryview, target: memoryview) -> tuple[int, int]:
        """Decode as much as possible; (bytes consumed, bytes produced).

        Stops when the source is used up, or at data when the target is full; framing between and
        after chunks is consumed as far as the source holds it.
        """
        position = produced = 0
        size_bytes = len(source)
        while position < size_bytes:
            if self.chunk_left_bytes:
                count = min(self.chunk_left_bytes, size_bytes - position, len(target) - produced)
                if count == 0:
                    break
                piece = source[position : position + count]
                target[produced : produced + count] = piece
                self.account(piece)
                position += count
                produced += count
            else:
                line, position = self._take_line(source, position)
                if line is not None:
                    self._handle_line(self, line)
        return position, produced

    def account(self, piece: memoryview) -> None:
        """Bytes of the current chunk (at most `chunk_left_bytes`) were received elsewhere."""
        assert len(piece) <= self.chunk_left_bytes
        if self._signed:
            self._chunk_hash.update(piece)
        self.chunk_left_bytes -= len(piece)
        if self.chunk_left_bytes == 0:
            if self._signed:
                self._check_chunk(self._chunk_hash.hexdigest())
            self._handle_line = ChunkedDecoder._end_chunk

    def finish(self) -> None:
        """The raw body has ended: IncompleteBody unless the decoder is done."""
        if not self.done:
            raise S3Error(ErrorCode.INCOMPLETE_BODY)
        if self._partial:
            raise _malformed("bytes follow the last chunk")

    def _take_line(self, source: memoryview, position: int) -> tuple[bytes | None, int]:
        """The next line with its end, or None when the source ends before it does."""
        room = MAX_LINE_BYTES - len(self._partial)
        window = bytes(source[position : position + room])
        end = window.find(b"\n") + 1
        if end == 0:
            if len(window) == room:
                raise _malformed("a line is too long")
            self._partial += window
            return None, position + len(window)
        line = window[:end]
        if self._partial:
            line = self._partial + line
            self._partial = b""
        return line, position + end

    def _start_chunk(self, line: bytes) -> None:
        match = (_SIGNED_LINE if self._signed else _PLAIN_LINE).fullmatch(line)
        if match is None:
            raise _malformed("a chunk's head is malformed")
        size_bytes = int(match[1], 16)
        if self._signed:
            self._chunk_signature = match[2].decode("ascii")
        if size_bytes == 0:
            if self._undeclared_bytes:
                raise S3Error(ErrorCode.INCOMPLETE_BODY)
            if self._signed:
                self._check_chunk(_EMPTY_SHA256)
            self._handle_line = ChunkedDecoder._handle_trailer_line
            return
        if size_bytes > self._undeclared_bytes:
            raise S3Error(
                ErrorCode.INCOMPLETE_BODY,
                "The chunks hold more bytes than x-amz-decoded-content-length says.",
            )
        if self._small_chunk_seen:
            raise S3Error(ErrorCode.INVALID_CHUNK_SIZE)
        self._small_chunk_seen = size_bytes < MIN_CHUNK_BYTES
        self._undeclared_bytes -= size_bytes
        self.chunk_left_bytes = size_bytes
        if self._signed:
            self._chunk_hash = hashlib.sha256()

    def _end_chunk(self, line: bytes) -> None:
        if line != b"\r\n":
            raise _malformed("a chunk's data is not followed by a line break")
        self._handle_line = ChunkedDecoder._start_chunk

    def _after_end(self, line: bytes) -> None:
        # Some encoders end the trailers with one line break too many.
        if line != b"\r\n":
            raise _malformed("bytes follow the last chunk")

    def _check_chunk(self, digest: str) -> None:
        string_to_sign = f"{self._string_head}{self._previous}\n{_EMPTY_SHA256}\n{digest}"
        self._check(string_to_sign, self._chunk_signature)

    def _check(self, string_to_sign: str, given: str) -> None:
        expected = self._signer.sign(string_to_sign.encode("latin-1"))
        if not hmac.compare_digest(expected, given):
            raise mismatch("", string_to_sign, given)
        self._previous = expected

    def _handle_trailer_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r\n").decode("latin-1")
        self._trailer_lines += 1
        if self._trailer_lines > MAX_TRAILER_LINES:
            raise S3Error(ErrorCode.MALFORMED_TRAILER)
        if not text:
            # Some encoders end each trailer with an extra "\n", which looks like an empty line
            # before the signature.
            if self._trailer_signed and self._trailer_signature is None:
                return
            self._finish_trailers()
            return
        name, colon, value = text.partition(":")
        name = name.strip(" \t").lower()
        value = value.strip(" \t")
        if not colon or name in self.trailers:
            raise S3Error(ErrorCode.MALFORMED_TRAILER)
        if name == SIGNATURE_TRAILER and self._trailer_signed:
            if self._trailer_signature is not None or _SIGNATURE.fullmatch(value) is None:
                raise S3Error(ErrorCode.MALFORMED_TRAILER)
            self._trailer_signature = value
            return
        if name != self._trailer or self._trailer_signature is not None:
            raise S3Error(ErrorCode.MALFORMED_TRAILER)
        self.trailers[name] = value

    def _finish_trailers(self) -> None:
        if self._trailer is not None and self._trailer not in self.trailers:
            raise S3Error(ErrorCode.MALFORMED_TRAILER)
        if self._trailer_signature is not None:
            canonical = "".join(f"{name}:{value}\n" for name, value in self.trailers.items())
            digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
            head = f"AWS4-HMAC-SHA256-TRAILER\n{self._verified.timestamp}\n{self._verified.scope}\n"
            self._check(f"{head}{self._previous}\n{digest}", self._trailer_signature)
        self.done = True
        self._handle_line = ChunkedDecoder._after_end


def _malformed(reason: str) -> S3Error:
    return S3Error(ErrorCode.INVALID_REQUEST, f"The aws-chunked body is malformed: {reason}.")
