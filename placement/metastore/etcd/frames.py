"""HTTP/2 frames and header blocks as a client of gRPC needs them: bytes to values and back, no I/O.

Source: RFC 9113 (frames), RFC 7541 (header compression; the package hpack decodes it), and gRPC's
protocol page, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from typing import NamedTuple
from urllib.parse import unquote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE_BYTES = 9
FRAME_SIZE_BYTES_DEFAULT = 16_384
FRAME_SIZE_BYTES_MAX = (1 << 24) - 1
WINDOW_DEFAULT = 65_535
WINDOW_MAX = (1 << 31) - 1

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 2, 4, 5
CANCEL, REFUSED_STREAM = 8, 7

_HEADER_BLOCK_SIZE_MAX = 64 << 10
_CACHED_BLOCKS_MAX = 64


class FrameError(Exception):
    """The peer broke HTTP/2 or gRPC: the connection cannot be used any more."""


class Frame(NamedTuple):
    """One frame as received."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as sent."""
    return b"%b%c%c%b%b" % (
        len(payload).to_bytes(3),
        kind,
        flags,
        stream.to_bytes(4),
        payload,
    )


def take_frames(buffer: bytearray) -> list[Frame]:
    """Take the whole frames off the front. Raises FrameError for one that is too long."""
    found = []
    position, end = 0, len(buffer)
    while end - position >= HEAD_SIZE_BYTES:
        size = int.from_bytes(buffer[position : position + 3])
        if size > FRAME_SIZE_BYTES_DEFAULT:  # we never allowed more
            raise FrameError(f"a frame of {size} bytes")
        begin = position + HEAD_SIZE_BYTES
        if begin + size > end:
            break
        stream = int.from_bytes(buffer[position + 5 : begin]) & 0x7FFF_FFFF
        payload = bytes(buffer[begin : begin + size])
        found.append(Frame(buffer[position + 3], buffer[position + 4], stream, payload))
        position = begin + size
    del buffer[:position]
    return found


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(k.to_bytes(2) + v.to_bytes(4) for k, v in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says. Raises FrameError."""
    if len(payload) % 6:
        raise FrameError("settings of a wrong size")
    return {
        int.from_bytes(payload[at : at + 2]): int.from_bytes(payload[at + 2 : at + 6])
        for at in range(0, len(payload), 6)
    }


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def read_number(payload: bytes) -> int:
    """The 31 bits of a WINDOW_UPDATE, or the first of a GOAWAY. Raises FrameError."""
    if len(payload) < 4:
        raise FrameError("a frame that is cut short")
    return int.from_bytes(payload[:4]) & 0x7FFF_FFFF


def content(got: Frame) -> bytes:
    """A payload without padding and priority. Raises FrameError."""
    payload = got.payload
    begin, end = 0, len(payload)
    if got.flags & PADDED:
        if not payload:
            raise FrameError("padding without its length")
        begin, end = 1, end - payload[0]
    if got.kind == HEADERS and got.flags & PRIORITY:
        begin += 5
    if begin > end:
        raise FrameError("more padding than payload")
    return payload[begin:end] if begin or end != len(payload) else payload


# --- headers ---


def request_block(
    path: str, authority: str, *, tls: bool, more: tuple[tuple[str, str], ...]
) -> bytes:
    """The headers of a gRPC call, all literal: the peer need not remember any."""
    block = b"\x83" + (b"\x87" if tls else b"\x86")  # POST, the scheme
    block += b"\x04" + _text(path) + b"\x01" + _text(authority)
    block += b"\x0f\x10" + _text("application/grpc")  # content-type
    for name, value in (("te", "trailers"), *more):
        block += b"\x10" + _text(name) + _text(value)  # never indexed: a token is secret
    return block


def _text(value: str) -> bytes:
    raw = value.encode("ascii")
    size = len(raw)
    if size < 127:
        return b"%c%b" % (size, raw)
    length = bytearray(b"\x7f")
    size -= 127
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + raw


class HeaderReader:
    """Decodes the header blocks of one connection in the order in which they come."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=_HEADER_BLOCK_SIZE_MAX)
        self._cached: dict[bytes, dict[str, str]] = {}

    def read(self, block: bytes) -> dict[str, str]:
        """Name → value. Raises FrameError."""
        known = self._cached.get(block)
        if known is not None:
            return known
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise FrameError(f"headers that cannot be read: {error}") from error
        if min(block, default=0) >= 0x80:
            # Every field is of the table, which such a block does not change.
            if len(self._cached) < _CACHED_BLOCKS_MAX:
                self._cached[block] = headers
        else:
            self._cached.clear()
        return headers


# --- gRPC ---


def message_frame(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length before it."""
    return b"\x00" + len(message).to_bytes(4) + message


def the_message(body: bytes) -> bytes:
    """The one message of an answer. Raises FrameError."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5]) != len(body) - 5:
        raise FrameError("an answer that is not one message")
    return body[5:]


def status_of(headers: dict[str, str]) -> tuple[int, str]:
    """(gRPC's status, its message) of an answer's last headers; 2 (unknown) when there is none."""
    status = headers.get("grpc-status")
    if status is None or not status.isdigit():
        return 2, f"no status; HTTP {headers.get(':status', 'without status')}"
    return int(status), unquote(headers.get("grpc-message", ""))
