"""Erasure coding of one stripe, and the checksum of a fragment: the only door to pyeclib.

Format (golden bytes in tests/golden): a stripe of n bytes under k+m is cut into k data fragments of
ceil(n / k) bytes, in order, the tail filled with zeros; m parity fragments of the same size follow
from a Cauchy matrix over GF(2^8) (pyeclib's `isa_l_rs_cauchy`), without pyeclib's 80-byte header.
With k = 1 every fragment is the stripe itself.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import xxhash
from pyeclib.ec_iface import ECDriver, ECDriverError

from placement.errors import CodingError
from placement.galois import Buffer, CauchyCoder, bundled_library

__all__ = [
    "CHECKSUM_SIZE_BYTES",
    "Buffer",
    "Codec",
    "checksum",
    "checksum_bytes",
    "codec_for",
    "fragment_size_bytes",
]

CHECKSUM_SIZE_BYTES = 8
_PACK_CHECKSUM = struct.Struct("<Q").pack

checksum = xxhash.xxh3_64_intdigest
"""xxh3-64 of a contiguous buffer, seed 0, as an integer."""


def checksum_bytes(buffer: Buffer) -> bytes:
    """The same as stored before a fragment: 8 bytes, little-endian."""
    return _PACK_CHECKSUM(checksum(buffer))


def fragment_size_bytes(k: int, stripe_bytes: int) -> int:
    """Bytes of every fragment of a stripe of that many plain bytes: ceil(stripe_bytes / k)."""
    return -(-stripe_bytes // k)


class Codec:
    """Coding of stripes under one k+m. Stateless for callers; threads may share it.

    Methods raise `CodingError` for what would otherwise be answered with wrong bytes or a crash:
    too few fragments, an index out of range, a buffer of the wrong size or not contiguous. They do
    *not* notice corrupt fragments: verify checksums first.
    """

    def __init__(self, k: int, m: int, *, direct: bool = True) -> None:
        """`direct` False leaves the coding to pyeclib, the reference."""
        if not (1 <= k <= 32 and 0 <= m <= 16):
            raise CodingError(f"unsupported scheme {k}+{m}")
        self.k = k
        self.m = m
        self._width = k + m
        self._coder: CauchyCoder | _ReferenceCoder | None = None
        if k > 1 and m > 0:
            library = bundled_library() if direct else None
            self._coder = _ReferenceCoder(k, m) if library is None else CauchyCoder(library, k, m)

    @property
    def is_direct(self) -> bool:
        """Whether ISA-L is called directly (faster, and without the GIL) rather than by pyeclib."""
        return not isinstance(self._coder, _ReferenceCoder)

    def padded_size_bytes(self, stripe_bytes: int) -> int:
        """Room that `encode_into` needs in the stripe's buffer: k whole fragments."""
        return self.k * fragment_size_bytes(self.k, stripe_bytes)

    def encode(self, stripe: Buffer) -> list[Buffer]:
        """The k + m fragments, data first. Data fragments are views of `stripe` where they lie
        wholly in it (so `stripe` may not change while they are used), else zero-padded copies.
        """
        view = _plain_view(stripe)
        if self.k == 1:
            return [view] * self._width
        size = fragment_size_bytes(self.k, len(view))
        fragments: list[Buffer] = []
        for start in range(0, size * self.k, size or 1):
            part: Buffer = view[start : start + size]
            fragments.append(part if len(part) == size else bytes(part).ljust(size, b"\0"))
        if size == 0:
            return [b""] * self._width
        if self._coder is not None:
            parity = [bytearray(size) for _ in range(self.m)]
            self._coder.encode_fragments(fragments, parity)
            fragments.extend(parity)
        return fragments

    def encode_into(
        self, stripe: memoryview, stripe_bytes: int, parity_out: Sequence[memoryview]
    ) -> None:
        """Write the parity of stripe[:stripe_bytes] into m writable views of the fragment size.

        `stripe` is writable and holds at least `padded_size_bytes`: the bytes after the stripe are
        set to zero in place, so that data fragment i is stripe[i × size : (i + 1) × size]. With
        k = 1 the stripe is copied. Nothing else is copied or allocated.
        """
        size = fragment_size_bytes(self.k, stripe_bytes)
        padded = size * self.k
        if stripe_bytes < 0 or stripe.nbytes < padded or not _is_plain(stripe):
            raise CodingError(f"a stripe of {stripe_bytes} bytes needs a buffer of {padded}")
        if len(parity_out) != self.m:
            raise CodingError(f"{self.m} parity buffers are needed, not {len(parity_out)}")
        for part in parity_out:
            if part.nbytes != size or part.readonly or not _is_plain(part):
                raise CodingError(f"a parity buffer must be writable and of {size} bytes")
        if size == 0:
            return
        if padded > stripe_bytes:
            if stripe.readonly:
                raise CodingError("padding needs a writable stripe")
            stripe[stripe_bytes:padded] = bytes(padded - stripe_bytes)
        if self._coder is not None:
            self._coder.encode_slices(stripe, size, parity_out)
        elif self.k == 1:
            for part in parity_out:
                part[:] = stripe[:size]

    def decode(self, fragments: Mapping[int, Buffer], stripe_bytes: int) -> bytes:
        """The stripe of `stripe_bytes` plain bytes from any k verified fragments by index."""
        size = self._check(fragments, stripe_bytes)
        if self.k == 1:
            return bytes(next(iter(fragments.values())))
        missing = tuple(i for i in range(self.k) if i not in fragments)
        rebuilt = self._rebuild(fragments, missing, size) if missing else {}
        parts: list[Buffer] = []
        left = stripe_bytes
        for index in range(self.k):
            part = rebuilt[index] if index in rebuilt else fragments[index]
            parts.append(part if left >= size else memoryview(part)[: max(left, 0)])
            left -= size
        stripe = b"".join(parts)
        assert len(stripe) == stripe_bytes
        return stripe

    def reconstruct(
        self, fragments: Mapping[int, Buffer], wanted: Sequence[int], stripe_bytes: int
    ) -> dict[int, bytes]:
        """The `wanted` fragments, data or parity, from any k verified ones."""
        size = self._check(fragments, stripe_bytes)
        for index in wanted:
            if not 0 <= index < self._width:
                raise CodingError(f"no fragment {index} in {self.k}+{self.m}")
        if self.k == 1:
            copy = bytes(next(iter(fragments.values())))
            return dict.fromkeys(wanted, copy)
        lacking = tuple(sorted({i for i in wanted if i not in fragments}))
        rebuilt = self._rebuild(fragments, lacking, size) if lacking else {}
        return {i: bytes(rebuilt[i] if i in rebuilt else fragments[i]) for i in wanted}

    def _check(self, fragments: Mapping[int, Buffer], stripe_bytes: int) -> int:
        """The fragment size, once the fragments are safe to hand to C."""
        if stripe_bytes < 0:
            raise CodingError("a stripe has no negative size")
        if len(fragments) < self.k:
            raise CodingError(f"{len(fragments)} fragments do not decode {self.k}+{self.m}")
        size = fragment_size_bytes(self.k, stripe_bytes)
        for index, part in fragments.items():
            if not 0 <= index < self._width:
                raise CodingError(f"no fragment {index} in {self.k}+{self.m}")
            if isinstance(part, memoryview):
                if part.nbytes != size or not _is_plain(part):
                    raise CodingError(f"fragment {index} is not {size} contiguous bytes")
            elif not isinstance(part, bytes | bytearray) or len(part) != size:
                raise CodingError(f"fragment {index} is not {size} contiguous bytes")
        return size

    def _rebuild(
        self, fragments: Mapping[int, Buffer], wanted: tuple[int, ...], size: int
    ) -> Mapping[int, Buffer]:
        """Fragments that are missing. Data survivors come first: fewer rows to compute."""
        if size == 0:
            return dict.fromkeys(wanted, b"")
        # With m = 0 nothing can be missing: _check demanded k of the k fragments.
        assert self._coder is not None
        survivors = tuple(sorted(fragments))[: self.k]
        rebuilt = [bytearray(size) for _ in wanted]
        self._coder.rebuild(survivors, [fragments[i] for i in survivors], wanted, rebuilt)
        return dict(zip(wanted, rebuilt, strict=True))


@lru_cache(maxsize=64)
def codec_for(k: int, m: int) -> Codec:
    """The process's codec of that scheme."""
    return Codec(k, m)


def _is_plain(view: memoryview) -> bool:
    """Bytes in one piece, so that indexes are byte offsets."""
    return view.contiguous and view.itemsize == 1 and view.ndim == 1


def _plain_view(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    if not _is_plain(view):
        raise CodingError("a stripe must be contiguous bytes")
    return view


class _ReferenceCoder:
    """The same coding through pyeclib: slower, holds the GIL, but what the format is defined by.

    pyeclib wants fragments with its own header in front, as `bytes` (other buffers abort the
    process), so they are wrapped here and unwrapped again.
    """

    _HEADER_SIZE_BYTES = 80
    _META = struct.Struct("<IIIQ")
    """Fragment index, payload size, backend's extra size, size of the stripe."""
    _META_SIZE_BYTES = 59
    _CHECKSUM_AT = 67
    """Where the CRC-32 of the first 59 bytes stands."""

    def __init__(self, k: int, m: int) -> None:
        self._k = k
        self._driver = ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy")
        self._header = bytes(self._driver.encode(b"\0")[0][: self._HEADER_SIZE_BYTES])

    def encode_slices(
        self, stripe: Buffer, size_bytes: int, parity: Sequence[bytearray | memoryview]
    ) -> None:
        self._write(self._driver.encode(bytes(stripe[: self._k * size_bytes])), parity)

    def encode_fragments(
        self, fragments: Sequence[Buffer], parity: Sequence[bytearray | memoryview]
    ) -> None:
        self._write(self._driver.encode(b"".join(fragments)), parity)

    def rebuild(
        self,
        survivors: tuple[int, ...],
        fragments: Sequence[Buffer],
        wanted: tuple[int, ...],
        rebuilt: Sequence[bytearray | memoryview],
    ) -> None:
        wrapped = [self._wrap(i, part) for i, part in zip(survivors, fragments, strict=True)]
        try:
            found = self._driver.reconstruct(wrapped, list(wanted))
        except ECDriverError as error:
            raise CodingError(f"pyeclib cannot rebuild fragments {wanted}") from error
        for target, fragment in zip(rebuilt, found, strict=True):
            target[:] = fragment[self._HEADER_SIZE_BYTES :]

    def _write(self, fragments: list[bytes], parity: Sequence[bytearray | memoryview]) -> None:
        for target, fragment in zip(parity, fragments[self._k :], strict=True):
            target[:] = fragment[self._HEADER_SIZE_BYTES :]

    def _wrap(self, index: int, fragment: Buffer) -> bytes:
        header = bytearray(self._header)
        size = len(fragment)
        self._META.pack_into(header, 0, index, size, 0, size * self._k)
        crc = zlib.crc32(header[: self._META_SIZE_BYTES])
        struct.pack_into("<I", header, self._CHECKSUM_AT, crc)
        return bytes(header) + bytes(fragment)
