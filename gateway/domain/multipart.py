"""The rules of multipart uploads: which part lists complete an upload, and what object they make.

Source: S3 User Guide, "Amazon S3 multipart upload limits"; S3 API Reference,
CompleteMultipartUpload ("Errors").
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PART_NUMBER_MAX = 10_000
PART_SIZE_BYTES_MAX = 5 << 30
PART_SIZE_BYTES_MIN = 5 << 20
"""Of every part but the last. The largest object, 48.8 TiB, follows: 10,000 parts of 5 GiB."""


@dataclass(frozen=True, slots=True)
class ListedPart:
    """An entry of the client's part list; `etag` hex, without quotes."""

    number: int
    etag: str


@dataclass(frozen=True, slots=True)
class KnownPart:
    """What of an uploaded part the rules look at."""

    etag: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NotAscending:
    """The list is not in ascending order of part numbers, each once."""


@dataclass(frozen=True, slots=True)
class PartNotFound:
    """No such part was uploaded, or it has another entity tag."""

    part: ListedPart


@dataclass(frozen=True, slots=True)
class PartTooSmall:
    """A part other than the last is below the minimum."""

    part: ListedPart
    size_bytes: int


Refusal = NotAscending | PartNotFound | PartTooSmall


def judge_parts(listed: Sequence[ListedPart], known: Mapping[int, KnownPart]) -> Refusal | None:
    """Why a part list does not complete an upload that has these parts; None when it does.

    The order is checked first, then each part's presence, then sizes, as S3 does.
    """
    assert listed, "a list without parts is malformed"
    previous = 0
    for part in listed:
        if part.number <= previous:
            return NotAscending()
        previous = part.number
    for part in listed:
        found = known.get(part.number)
        if found is None or found.etag.hex() != part.etag.lower():
            return PartNotFound(part)
    for part in listed[:-1]:
        size_bytes = known[part.number].size_bytes
        if size_bytes < PART_SIZE_BYTES_MIN:
            return PartTooSmall(part, size_bytes)
    return None


def etag_of_parts(etags: Sequence[bytes]) -> bytes:
    """The MD5 of the parts' MD5s; its text form ends with "-N"."""
    return hashlib.md5(b"".join(etags), usedforsecurity=False).digest()


def completion_token(listed: Sequence[ListedPart]) -> bytes:
    """16 bytes that are the same for the same part list: who repeats a completion sends them again."""
    digest = hashlib.sha256()
    for part in listed:
        digest.update(f"{part.number}:{part.etag.lower()}\n".encode())
    return digest.digest()[:16]
