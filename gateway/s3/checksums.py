"""Checksums of bodies: S3's algorithms, their headers, running digests, and sums over parts."""

import binascii
import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol

import xxhash
from awscrt import checksums as crt
from isal import isal_zlib

from gateway.s3.errors import ErrorCode, S3Error

Update = Callable[[memoryview, int], int]
Combine = Callable[[int, int, int], int]


class Hash(Protocol):
    """What hashlib's and xxhash's hashes have in common."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Feed bytes."""

    def digest(self) -> bytes:
        """The hash of the bytes so far."""


_SIZES_BYTES: Final = {
    "CRC32": 4,
    "CRC32C": 4,
    "CRC64NVME": 8,
    "SHA1": 20,
    "SHA256": 32,
    "SHA512": 64,
    "MD5": 16,
    "XXHASH64": 8,
    "XXHASH3": 8,
    "XXHASH128": 16,
}


class ChecksumAlgorithm(StrEnum):
    """The additional checksums of S3. The value is S3's name.

    Source: S3 User Guide, "Checking object integrity in Amazon S3".
    """

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA512 = "SHA512"
    MD5 = "MD5"
    XXHASH64 = "XXHASH64"
    XXHASH3 = "XXHASH3"
    XXHASH128 = "XXHASH128"

    def __init__(self, text: str) -> None:
        self.text = text
        self.header = f"x-amz-checksum-{text.lower()}"
        self.element = f"Checksum{text}"
        self.size_bytes = _SIZES_BYTES[text]
        self.is_crc = text.startswith("CRC")

    def decode(self, value: str) -> bytes:
        """Raw bytes of a header's or element's base64 value; InvalidRequest when it is invalid."""
        raw = decode_base64(value)
        if raw is None or len(raw) != self.size_bytes:
            raise S3Error(ErrorCode.INVALID_REQUEST, f"Value for {self.header} header is invalid.")
        return raw


class ChecksumType(StrEnum):
    """What a multipart object's checksum covers: the parts' checksums, or the bytes."""

    COMPOSITE = "COMPOSITE"
    FULL_OBJECT = "FULL_OBJECT"


ALGORITHM_BY_HEADER: Final = {algorithm.header: algorithm for algorithm in ChecksumAlgorithm}
ALGORITHM_BY_ELEMENT: Final = {algorithm.element: algorithm for algorithm in ChecksumAlgorithm}
ALGORITHM_BY_NAME: Final = {algorithm.text: algorithm for algorithm in ChecksumAlgorithm}

_CRC_UPDATE: Final[dict[ChecksumAlgorithm, Update]] = {
    ChecksumAlgorithm.CRC32: isal_zlib.crc32,
    ChecksumAlgorithm.CRC32C: crt.crc32c,
    ChecksumAlgorithm.CRC64NVME: crt.crc64nvme,
}
_CRC_COMBINE: Final[dict[ChecksumAlgorithm, Combine]] = {
    ChecksumAlgorithm.CRC32: crt.combine_crc32,
    ChecksumAlgorithm.CRC32C: crt.combine_crc32c,
    ChecksumAlgorithm.CRC64NVME: crt.combine_crc64nvme,
}
_HASHES: Final[dict[ChecksumAlgorithm, Callable[[], Hash]]] = {
    ChecksumAlgorithm.SHA1: lambda: hashlib.sha1(usedforsecurity=False),
    ChecksumAlgorithm.SHA512: hashlib.sha512,
    ChecksumAlgorithm.MD5: lambda: hashlib.md5(usedforsecurity=False),
    ChecksumAlgorithm.XXHASH64: xxhash.xxh64,
    ChecksumAlgorithm.XXHASH3: xxhash.xxh3_64,
    ChecksumAlgorithm.XXHASH128: xxhash.xxh3_128,
}
"""Those beside the CRCs and SHA-256. Digests of xxHash are in its canonical form, big-endian."""


def decode_base64(value: str) -> bytes | None:
    """The bytes of strict base64, or None."""
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        return None


def encode_base64(value: bytes) -> str:
    """Base64 text as S3's headers carry it."""
    return b64encode(value).decode("ascii")


class Digests:
    """Running digests over one body, in two halves that two threads may feed at the same time.

    `update_md5` feeds MD5; `update_rest` everything else: the additional checksum and, when the
    client signed the payload, its SHA-256. Each half must see all bytes in order.
    """

    __slots__ = ("_crc", "_crc_update", "_hash", "_md5", "_sha256", "algorithm")

    def __init__(
        self,
        algorithm: ChecksumAlgorithm | None = None,
        *,
        md5: bool = True,
        payload_sha256: bool = False,
    ) -> None:
        self.algorithm = algorithm
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._crc = 0
        self._crc_update = _CRC_UPDATE.get(algorithm) if algorithm is not None else None
        self._sha256 = (
            hashlib.sha256() if payload_sha256 or algorithm is ChecksumAlgorithm.SHA256 else None
        )
        hash_maker = _HASHES.get(algorithm) if algorithm is not None else None
        if algorithm is ChecksumAlgorithm.MD5 and md5:
            hash_maker = None  # One MD5 serves for both.
        self._hash = hash_maker() if hash_maker is not None else None

    @property
    def wants_rest(self) -> bool:
        """Whether `update_rest` does anything."""
        return self._sha256 is not None or self._crc_update is not None or self._hash is not None

    def update(self, buffer: memoryview | bytes) -> None:
        """Feed everything (small bodies)."""
        self.update_md5(buffer)
        self.update_rest(buffer)

    def update_md5(self, buffer: memoryview | bytes) -> None:
        """Feed MD5."""
        if self._md5 is not None:
            self._md5.update(buffer)

    def update_rest(self, buffer: memoryview | bytes) -> None:
        """Feed the checksum and the payload's SHA-256."""
        if self._sha256 is not None:
            self._sha256.update(buffer)
        if self._crc_update is not None:
            self._crc = self._crc_update(buffer, self._crc)  # type: ignore[arg-type]
        elif self._hash is not None:
            self._hash.update(buffer)

    @property
    def md5(self) -> bytes:
        """MD5 so far: the ETag of a plain object."""
        assert self._md5 is not None, "MD5 was not asked for"
        return self._md5.digest()

    @property
    def payload_sha256(self) -> bytes | None:
        """SHA-256 so far, or None when nobody asked for it."""
        return None if self._sha256 is None else self._sha256.digest()

    @property
    def checksum(self) -> bytes | None:
        """Raw bytes of the additional checksum so far, or None without an algorithm."""
        if self.algorithm is None:
            return None
        if self._crc_update is not None:
            return self._crc.to_bytes(self.algorithm.size_bytes, "big")
        if self._hash is not None:
            return self._hash.digest()
        if self.algorithm is ChecksumAlgorithm.MD5:
            return self.md5
        assert self._sha256 is not None
        return self._sha256.digest()


def checksum_of(algorithm: ChecksumAlgorithm, data: bytes) -> bytes:
    """The checksum of bytes at hand."""
    digests = Digests(algorithm, md5=False)
    digests.update_rest(data)
    result = digests.checksum
    assert result is not None
    return result


def composite(algorithm: ChecksumAlgorithm, parts: Iterable[bytes]) -> bytes:
    """The checksum of the parts' checksums; its text form ends with "-N"."""
    return checksum_of(algorithm, b"".join(parts))


def full_object(algorithm: ChecksumAlgorithm, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """The CRC of the whole object from (CRC, size in bytes) of its parts, without its bytes."""
    combine = _CRC_COMBINE[algorithm]
    total = 0
    for value, size_bytes in parts:
        assert len(value) == algorithm.size_bytes
        total = combine(total, int.from_bytes(value, "big"), size_bytes)
    return total.to_bytes(algorithm.size_bytes, "big")


def format_checksum(value: bytes, parts: int = 0) -> str:
    """Base64 text, with "-N" for a composite of N parts."""
    text = encode_base64(value)
    return f"{text}-{parts}" if parts else text


def algorithm_named(name: str, header: str) -> ChecksumAlgorithm:
    """The algorithm a header names (case does not matter); InvalidRequest for any other name."""
    algorithm = ALGORITHM_BY_NAME.get(name.strip().upper())
    if algorithm is None:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"Value for {header} header is invalid."
            if header.startswith("x-amz-checksum")
            else "Checksum algorithm provided is unsupported. Please try again with any of the "
            f"valid types: [{', '.join(sorted(ALGORITHM_BY_NAME))}]",
        )
    return algorithm


def upload_checksum(
    headers: Mapping[str, str],
) -> tuple[ChecksumAlgorithm, ChecksumType] | None:
    """What CreateMultipartUpload's x-amz-checksum-algorithm and -type ask for, if anything.

    CRC64NVME is full object only; other CRCs default to composite, and hashes are nothing else.
    """
    kind = headers.get("x-amz-checksum-type")
    name = headers.get("x-amz-checksum-algorithm")
    if name is None:
        if kind is not None:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "The x-amz-checksum-type header can only be used with the "
                "x-amz-checksum-algorithm header.",
            )
        return None
    algorithm = algorithm_named(name, "x-amz-checksum-algorithm")
    if kind is None:
        full = algorithm is ChecksumAlgorithm.CRC64NVME
        return algorithm, ChecksumType.FULL_OBJECT if full else ChecksumType.COMPOSITE
    chosen = checksum_type(kind)
    assert chosen is not None
    if (chosen is ChecksumType.FULL_OBJECT and not algorithm.is_crc) or (
        chosen is ChecksumType.COMPOSITE and algorithm is ChecksumAlgorithm.CRC64NVME
    ):
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"The {chosen.value} checksum type cannot be used with the "
            f"{algorithm.text.lower()} checksum algorithm.",
        )
    return algorithm, chosen


def checksum_type(value: str | None) -> ChecksumType | None:
    """The value of an x-amz-checksum-type header; InvalidRequest when it is no such type."""
    if value is None:
        return None
    try:
        return ChecksumType(value.strip().upper())
    except ValueError:
        raise S3Error(
            ErrorCode.INVALID_REQUEST, "Value for x-amz-checksum-type header is invalid."
        ) from None


def header_checksum(headers: Mapping[str, str]) -> tuple[ChecksumAlgorithm, str] | None:
    """The one x-amz-checksum-* value header, as (algorithm, text); InvalidRequest for several."""
    named = [name for name in headers if name.startswith("x-amz-checksum-")]
    if not named:
        return None
    values = [name for name in named if name not in _OTHER_CHECKSUM_HEADERS]
    if not ALGORITHM_BY_HEADER.keys() >= set(values):
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "The algorithm type you specified in x-amz-checksum- header is invalid.",
        )
    if len(values) > 1:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    return (ALGORITHM_BY_HEADER[values[0]], headers[values[0]]) if values else None


_OTHER_CHECKSUM_HEADERS: Final = frozenset(
    {"x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode"}
)


def trailer_algorithm(headers: Mapping[str, str]) -> ChecksumAlgorithm | None:
    """The algorithm that x-amz-trailer announces, if any; InvalidRequest for other trailers."""
    announced = headers.get("x-amz-trailer")
    if announced is None:
        return None
    algorithm = ALGORITHM_BY_HEADER.get(announced.strip().lower())
    if algorithm is None:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "The value specified in the x-amz-trailer header is not supported",
        )
    return algorithm
