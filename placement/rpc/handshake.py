"""Who is at the other end: mutual authentication by the cluster key, and addresses of TCP peers.

Over TCP each hello carries a fresh nonce. Then each side proves that it holds the cluster key: an
HMAC over its role and both hellos, compared in constant time. The roles differ, so neither a replayed
nor a reflected proof is ever right. Nothing but these two frames is read before. What follows is
neither hidden nor sealed: where the network is not trusted, TLS goes under it.
"""

import hashlib
import hmac
import ssl
from dataclasses import dataclass, field
from enum import Enum

from placement.clock import Randomness, SystemRandomness
from placement.errors import ProtocolError
from placement.rpc.frames import (
    AUTHENTICATES,
    NONCE_SIZE_BYTES,
    Buffer,
    Hello,
    decode_hello,
    encode_hello,
)

KEY_SIZE_BYTES = 32
_PURPOSE = b"ostraka wire 1"


class Role(Enum):
    """Which end of the connection a proof speaks for."""

    DIALS = b"dials\x00"
    LISTENS = b"listens\x00"


class ClusterKey:
    """The secret that all processes of a cluster share, as far as the wire needs it."""

    __slots__ = ("_wire",)

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError unless these are 32 bytes."""
        if len(secret) != KEY_SIZE_BYTES:
            raise ValueError(f"a cluster key has {KEY_SIZE_BYTES} bytes, not {len(secret)}")
        # A key of its own for each purpose: the same secret seals what is at rest.
        self._wire = hmac.digest(secret, _PURPOSE, hashlib.sha256)

    def __repr__(self) -> str:
        return "ClusterKey(…)"

    def proof(self, role: Role, dialer_hello: bytes, listener_hello: bytes) -> bytes:
        """What the side of that role sends after these hellos."""
        mac = hmac.new(self._wire, role.value, hashlib.sha256)
        for hello in (dialer_hello, listener_hello):
            mac.update(len(hello).to_bytes(4, "little"))
            mac.update(hello)
        return mac.digest()


class Handshake:
    """One side's part of opening one connection. Without a key nothing is proved (Unix sockets,
    whose file mode says who may connect)."""

    def __init__(
        self,
        name: str,
        role: Role = Role.DIALS,
        key: ClusterKey | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        self._role = role
        self._key = key
        nonce = b""
        if key is not None:
            nonce = (randomness or SystemRandomness()).token(NONCE_SIZE_BYTES)
        self.hello: tuple[bytes, bytes] = encode_hello(
            name, AUTHENTICATES if key is not None else 0, nonce
        )
        self._peer: Hello | None = None
        self._peer_bytes = b""

    def greeted(self, header: Buffer, payload: Buffer) -> tuple[Hello, bytes | None]:
        """The peer's hello, and the proof to send; no proof: the connection is open. Raises
        ProtocolError."""
        if self._peer is not None:
            raise ProtocolError("the peer said hello twice")
        peer = decode_hello(header, payload)
        if self._key is None:
            if peer.features & AUTHENTICATES:
                raise ProtocolError("the peer asks for a cluster key and this end has none")
            return peer, None
        if not peer.features & AUTHENTICATES or len(peer.nonce) != NONCE_SIZE_BYTES:
            raise ProtocolError("the peer does not authenticate itself")
        self._peer = peer
        self._peer_bytes = bytes(header) + bytes(payload)
        return peer, self._key.proof(self._role, *self._hellos())

    def proved(self, proof: Buffer) -> Hello:
        """The peer's hello, now that its proof was right. Raises ProtocolError."""
        if self._key is None or self._peer is None:
            raise ProtocolError("the peer's first frame is no hello")
        other = Role.LISTENS if self._role is Role.DIALS else Role.DIALS
        if not hmac.compare_digest(self._key.proof(other, *self._hellos()), bytes(proof)):
            raise ProtocolError("the peer has another cluster key")
        return self._peer

    def _hellos(self) -> tuple[bytes, bytes]:
        own = b"".join(self.hello)
        if self._role is Role.DIALS:
            return own, self._peer_bytes
        return self._peer_bytes, own


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """Where a peer listens, and what it takes to speak to it."""

    host: str
    port: int
    key: ClusterKey = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def format_address(host: str, port: int) -> str:
    """HOST:PORT; an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT; raises ValueError otherwise."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"an address reads HOST:PORT, not {text!r}")
    return host, int(port)
