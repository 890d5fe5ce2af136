"""The bytes of the framed protocol: one fixed header, the hello, and how errors travel.

A frame is a 24-byte little-endian header, then `header length` header bytes, then the payload:

    u32 length of what follows the 24 bytes · u64 request id · u16 verb · u8 kind · u8 flags
    u32 header length · u32 deadline in milliseconds (0: none), counted from sending

Each side's first frame is its hello: magic, the range of protocol versions it speaks, its feature
bits and, where it authenticates itself, a nonce as header, its name as payload. Then, with a nonce,
comes its proof (`handshake`). Frames until then are short.
"""

import struct
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from placement.errors import PeerUnavailable, PlacementError, ProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What may be sent. A memoryview must count bytes (format "B"); nothing may change before it left."""

FRAME_HEADER = struct.Struct("<IQHBBII")
FRAME_HEADER_SIZE_BYTES = FRAME_HEADER.size
FRAME_SIZE_BYTES_MAX = 16 << 20
"""Header and payload of one frame; a longer one closes the connection."""

HANDSHAKE_FRAME_SIZE_BYTES_MAX = 1024
"""What a peer may send in one frame before it is known."""

BACKGROUND = 1
"""Flag: the call is not for a waiting client."""

_HELLO = struct.Struct("<8sHHQ")
_MAGIC = b"OSTRAKA\x00"
NONCE_SIZE_BYTES = 32
AUTHENTICATES = 1
"""Feature bit: a nonce follows, and a proof after the hello."""
VERSION_MIN = 1
VERSION_MAX = 1
_ERROR_CODE = struct.Struct("<I")


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 0
    CALL = 1
    REPLY = 2
    ERROR = 3
    PUSH = 4
    END = 5
    CANCEL = 6
    PROOF = 7
    PING = 8
    PONG = 9


class ErrorCode(IntEnum):
    """Errors of the protocol itself. Services use codes from 16."""

    INTERNAL = 1
    UNKNOWN_VERB = 2
    CANCELLED = 3
    CLOSING = 4
    REPLY_TOO_LARGE = 5


class RemoteError(PlacementError):
    """The peer answered with an error. `code` is an `ErrorCode` or one of the service's own; the
    adapter of the service translates it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message


class NotSent(PeerUnavailable):
    """The call never left this process. It may be made again."""


class AnswerLost(PeerUnavailable):
    """The call left and no answer came, by deadline or disconnection: its outcome is unknown."""


class Hello(NamedTuple):
    """How a peer introduces itself."""

    version_min: int
    version_max: int
    features: int
    name: str
    nonce: bytes = b""


def encode_hello(name: str, features: int = 0, nonce: bytes = b"") -> tuple[bytes, bytes]:
    """Header and payload of this side's hello."""
    return _HELLO.pack(_MAGIC, VERSION_MIN, VERSION_MAX, features) + nonce, name.encode()[:255]


def decode_hello(header: Buffer, payload: Buffer) -> Hello:
    """The peer's hello. Raises ProtocolError when it is none or no version is common."""
    if len(header) < _HELLO.size:
        raise ProtocolError("the peer's hello is too short")
    magic, version_min, version_max, features = _HELLO.unpack_from(header)
    if magic != _MAGIC:
        raise ProtocolError("the peer does not speak this protocol")
    if version_min > VERSION_MAX or version_max < VERSION_MIN:
        raise ProtocolError(
            f"the peer speaks versions {version_min} to {version_max} of this protocol,"
            f" this end {VERSION_MIN} to {VERSION_MAX}"
        )
    name = bytes(payload[:255]).decode(errors="replace")
    nonce = bytes(header[_HELLO.size : _HELLO.size + NONCE_SIZE_BYTES])
    return Hello(version_min, version_max, features, name, nonce)


def encode_error(code: int, message: str) -> bytes:
    """Header of an error frame."""
    return _ERROR_CODE.pack(code) + message.encode()[:4096]


def decode_error(header: Buffer) -> RemoteError:
    """The error a peer answered with. Raises ProtocolError."""
    if len(header) < _ERROR_CODE.size:
        raise ProtocolError("an error frame is too short")
    message = bytes(header[_ERROR_CODE.size :]).decode(errors="replace")
    return RemoteError(_ERROR_CODE.unpack_from(header)[0], message)
